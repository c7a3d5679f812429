//! Requests that must not be taken twice, when their answer was lost.

use anyhow::Result;
use reqwest::RequestBuilder;

use crate::http::{self, Answer, Lost, Retry};

/// How often a request whose answer was lost is sent, once it is known that it was not taken.
pub const TRIES: usize = 3;

/// Sends what must not be taken twice. `None`: the answer was lost; by the time that this is known, what was taken can be seen.
pub async fn send_once(request: RequestBuilder, retry: &Retry) -> Result<Option<Answer>> {
    match http::fetch(request, &retry.once()).await {
        Err(error) if error.downcast_ref::<Lost>().is_some() => {
            tracing::info!("looking whether it was taken: {error:#}");
            tokio::time::sleep(retry.first).await;
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// It was lost each time.
pub fn give_up() -> anyhow::Error {
    anyhow::anyhow!("the forge's answer was lost {TRIES} times")
}
