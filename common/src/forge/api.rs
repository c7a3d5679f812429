//! How any forge's API is spoken to: with one credential, and one patience.

use anyhow::Result;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder};

use crate::http::{self, Answer, Retry};

/// A client with the headers of every request.
#[derive(Clone)]
pub struct Api {
    http: Client,
    headers: HeaderMap,
    /// How patiently requests are repeated.
    pub retry: Retry,
}

impl Api {
    /// With this `Authorization` and these headers.
    pub fn new(authorization: &str, more: &[(HeaderName, &'static str)]) -> Result<Self> {
        let own = (AUTHORIZATION, http::authorization(authorization)?);
        let more = more.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Ok(Self {
            http: http::client()?,
            headers: std::iter::once(own).chain(more).collect(),
            retry: Retry::API,
        })
    }

    /// A request to an address.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.http.request(method, url).headers(self.headers.clone())
    }

    /// Sends one; what is refused with 4xx is the caller's to judge.
    pub async fn fetch(&self, request: RequestBuilder) -> Result<Answer> {
        http::fetch(request, &self.retry).await
    }
}
