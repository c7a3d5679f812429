//! Compute Engine's API, as far as it is needed: requests, pages, operations.

use std::time::Duration;

use anyhow::Result;
use common::http::{self, Retry};
use reqwest::{Client, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::body::{Aggregated, Console, Found, Image, Insert, Offer, Operation, Region, Scoped};
use super::credentials::Account;
use super::error::Error;

/// Where it is, unless gcloud's own variable names another address ([gcloud]).
///
/// [gcloud]: https://docs.cloud.google.com/sdk/gcloud/reference/topic/configurations
const ENDPOINT: &str = "https://compute.googleapis.com/compute/v1/";
const OVERRIDE: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE";

/// Its rate limits [refill every minute][limits], and do not say when.
///
/// [limits]: https://docs.cloud.google.com/compute/api-quota
const RETRY: Retry = Retry {
    unsaid_limit: Duration::from_secs(5),
    ..Retry::API
};

/// The first pause between two looks at an operation; each one after it is half as long again.
const LOOK: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// An operation that takes longer is lost; making a machine takes a minute at most.
const OPERATION: Duration = Duration::from_mins(10);
/// Instances on one page: each brings its start-up data, and an answer has its limit.
const PAGE: &str = "20";
/// The port of the console.
const PORT: &str = "1";

/// The API, for one project.
pub struct Compute {
    http: Client,
    base: String,
    account: Account,
}

impl Compute {
    /// For the project of the environment.
    pub async fn open() -> Result<Self> {
        let account = Account::open().await?;
        let base = std::env::var(OVERRIDE).unwrap_or_else(|_| ENDPOINT.into());
        Ok(Self {
            http: http::client()?,
            base: format!("{}/projects/", base.trim_end_matches('/')),
            account,
        })
    }

    /// Which project.
    pub fn project(&self) -> &str {
        &self.account.project
    }

    /// Asks for an instance, and waits until it is made. The same `request_id` twice is one request.
    pub async fn insert(&self, zone: &str, body: &Insert, request_id: &str) -> Result<Operation, Error> {
        let request = self.request(Method::POST, &self.own(&format!("zones/{zone}/instances")));
        let asked = self.send(request.query(&[("requestId", request_id)]).json(body)).await?;
        self.done(zone, asked).await
    }

    /// Asks for the end of an instance.
    pub async fn delete(&self, zone: &str, name: &str) -> Result<Operation, Error> {
        let path = self.own(&format!("zones/{zone}/instances/{name}"));
        let asked: Operation = self.send(self.request(Method::DELETE, &path)).await?;
        Error::of_operation(&asked).map_or(Ok(asked), Err)
    }

    /// One instance.
    pub async fn instance(&self, zone: &str, name: &str) -> Result<Found, Error> {
        self.get(&self.own(&format!("zones/{zone}/instances/{name}")), &()).await
    }

    /// Every instance that has these labels, in every zone whose name begins so.
    pub async fn instances(&self, filter: &str, region: &str) -> Result<Vec<Found>, Error> {
        let scopes = self.aggregated("instances", filter).await?;
        let prefix = format!("zones/{region}-");
        let mut found = Vec::new();
        for (place, scoped) in scopes.into_iter().filter(|(place, _)| place.starts_with(&prefix)) {
            if scoped.warning.is_some_and(|warning| warning.code == "UNREACHABLE") {
                return Err(Error::unanswered(anyhow::anyhow!("{place} does not answer")));
            }
            found.extend(scoped.instances);
        }
        Ok(found)
    }

    /// The zones that have a machine type.
    pub async fn zones_of_machine(&self, name: &str) -> Result<Vec<String>, Error> {
        self.zones_of("machineTypes", name, |scoped| &scoped.machine_types).await
    }

    /// The zones that have an accelerator type.
    pub async fn zones_of_accelerator(&self, name: &str) -> Result<Vec<String>, Error> {
        self.zones_of("acceleratorTypes", name, |scoped| &scoped.accelerator_types).await
    }

    async fn zones_of(&self, kind: &str, name: &str, offers: fn(&Scoped) -> &Vec<Offer>) -> Result<Vec<String>, Error> {
        let scopes = self.aggregated(kind, &format!("name = \"{name}\"")).await?;
        let has = |scoped: &Scoped| offers(scoped).iter().any(Offer::is_there);
        let zones = scopes.iter().filter(|(_, scoped)| has(scoped));
        Ok(zones
            .filter_map(|(place, _)| Some(place.strip_prefix("zones/")?.to_owned()))
            .collect())
    }

    /// All pages of a list over all zones.
    async fn aggregated(&self, kind: &str, filter: &str) -> Result<Vec<(String, Scoped)>, Error> {
        let path = self.own(&format!("aggregated/{kind}"));
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("filter", filter), ("maxResults", PAGE)];
            if !token.is_empty() {
                query.push(("pageToken", &token));
            }
            let page: Aggregated<Scoped> = self.get(&path, &query).await?;
            all.extend(page.items);
            match page.next_page_token {
                Some(next) if !next.is_empty() => token = next,
                _ => return Ok(all),
            }
        }
    }

    /// A region with its zones.
    pub async fn region(&self, name: &str) -> Result<Region, Error> {
        self.get(&self.own(&format!("regions/{name}")), &[("fields", "zones")]).await
    }

    /// The newest image of a family.
    pub async fn image_of_family(&self, project: &str, family: &str) -> Result<Image, Error> {
        self.get(&format!("{project}/global/images/family/{family}"), &()).await
    }

    /// One image.
    pub async fn image(&self, project: &str, name: &str) -> Result<Image, Error> {
        self.get(&format!("{project}/global/images/{name}"), &()).await
    }

    /// The last megabyte of an instance's console.
    pub async fn console(&self, zone: &str, name: &str) -> Result<String, Error> {
        let path = self.own(&format!("zones/{zone}/instances/{name}/serialPort"));
        let output: Console = self.get(&path, &[("port", PORT)]).await?;
        Ok(output.contents)
    }

    /// Waits for the end of an operation. Not by `wait`, which says nothing for longer than a connection may be silent.
    async fn done(&self, zone: &str, mut operation: Operation) -> Result<Operation, Error> {
        let end = Instant::now() + OPERATION;
        let mut pause = LOOK;
        while operation.status != "DONE" {
            if Instant::now() >= end {
                return Err(Error::unanswered(anyhow::anyhow!("the operation {} does not end", operation.name)));
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_LOOK);
            let path = self.own(&format!("zones/{zone}/operations/{}", operation.name));
            operation = self.get(&path, &()).await?;
        }
        Error::of_operation(&operation).map_or(Ok(operation), Err)
    }

    /// A path in our project.
    fn own(&self, path: &str) -> String {
        format!("{}/{path}", self.account.project)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &(impl Serialize + ?Sized + Sync)) -> Result<T, Error> {
        self.send(self.request(Method::GET, path).query(query)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Error> {
        let headers = self.account.headers().await.map_err(Error::unanswered)?;
        let answer = http::fetch(request.headers(headers), &RETRY).await.map_err(Error::unanswered)?;
        if answer.status.is_success() {
            return answer.json().map_err(Error::unanswered);
        }
        Err(Error::of_answer(&answer))
    }
}
