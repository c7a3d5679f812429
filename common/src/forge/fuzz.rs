//! What a forge answers, given any bytes.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::{bitbucket, github, gitlab, page};
use crate::error::Report;
use crate::fuzz::is_harmful;
use crate::http::{Answer, rate_limit};

/// An answer, as `STATUS`, lines of headers, an empty line, and the body: what is said of it does nothing to a terminal. The body as a page's address: what is shown of it has no credentials.
pub fn forge_answer(data: &[u8]) {
    let Some(answer) = answer(data) else { return };
    let _ = rate_limit(answer.status, &answer.headers, &answer.body, Duration::from_mins(1));
    let _ = answer.sent_at();
    let page: Url = "https://github.com/octo/train".parse().unwrap();
    let of_github = github::refusal::of(
        &answer,
        &github::scope::Scope::parse(&page).unwrap(),
        github::refusal::Permission::Runners,
    );
    let page: Url = "https://bitbucket.org/octo/train".parse().unwrap();
    let of_bitbucket = bitbucket::refusal::of(
        &answer,
        &bitbucket::scope::Scope::parse(&page).unwrap(),
        bitbucket::refusal::Permission::Runners,
    );
    for error in [of_github, of_bitbucket, gitlab::refusal::of(&answer, "project", "the scope `api`")] {
        let report = Report(&error).to_string();
        assert!(!report.replace('\n', "").contains(is_harmful), "{report:?}");
    }
    let text = String::from_utf8_lossy(&answer.body);
    if let Ok(mut page) = text.parse::<Url>()
        && page.set_password(Some("canary-c9a1d2")).is_ok()
        && !text.contains("canary")
    {
        let said = page::check(&page).map_or_else(|error| Report(&error).to_string(), |()| page::shown(&page));
        assert!(!said.contains("canary"), "{said}");
    }
}

fn answer(data: &[u8]) -> Option<Answer> {
    let mut parts = data.split(|byte| *byte == b'\n');
    let status = std::str::from_utf8(parts.next()?).ok()?.trim().parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in parts.by_ref().take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        let value = HeaderValue::from_bytes(value.trim_ascii_start().strip_prefix(b":")?.trim_ascii()).ok()?;
        headers.append(HeaderName::from_bytes(name).ok()?, value);
    }
    Some(Answer {
        status: StatusCode::from_u16(status).ok()?,
        headers,
        body: parts.collect::<Vec<_>>().join(&b'\n'),
        tries: 1,
    })
}
