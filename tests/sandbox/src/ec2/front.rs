//! What every request passes first: the form, faults, the signature's key, the log, the recording.

use std::io::Write as _;
use std::panic::resume_unwind;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::answers::{Refusal, error};
use super::{ACCESS_KEY, Ec2, Form, answers, check, lock, offers, prices, refusal, run};
use crate::faults::Effect;

pub fn app(ec2: &Ec2) -> Router {
    Router::new().fallback(front).with_state(ec2.clone())
}

async fn front(State(ec2): State<Ec2>, headers: HeaderMap, body: String) -> Response {
    let is_list = headers.get("x-amz-target").is_some_and(|target| target == prices::TARGET);
    let form: Form = if is_list { Form::new() } else { crate::form::parse(&body) };
    let action = if is_list {
        prices::ACTION.to_owned()
    } else {
        form.get("Action").cloned().unwrap_or_default()
    };
    lock(&ec2.0.log).push((action.clone(), form.clone()));
    // The recording is held against the model of EC2 alone.
    if let Some(file) = ec2.0.record.as_ref().filter(|_| !is_list) {
        let _ = lock(file).write_all(format!("{body}\n").as_bytes());
    }
    let mut lose = false;
    match ec2.0.faults.strike(&action) {
        None => {}
        Some(Effect::Reset) => hang_up(),
        Some(Effect::LoseAnswer) => lose = true,
        Some(Effect::Delay(time)) => tokio::time::sleep(time).await,
        Some(Effect::Hold(gate)) => gate.pass().await,
        Some(Effect::Answer { status, body, .. }) => return xml(status, body),
    }
    if is_list {
        let question = serde_json::from_str(&body).unwrap_or_default();
        return match signer(&headers, "pricing") {
            Some(region) if region == "us-east-1" => axum::Json(prices::products(&question)).into_response(),
            _ => (StatusCode::BAD_REQUEST, "{\"__type\":\"UnrecognizedClientException\"}").into_response(),
        };
    }
    let answer = match signer(&headers, "ec2") {
        Some(region) => act(&ec2, &action, &form, &region),
        None => Err(Refusal(401, "AuthFailure", refusal::NO_AUTH.into())),
    };
    if lose {
        hang_up();
    }
    match answer {
        Ok(body) => xml(200, answers::document(&action, &body)),
        Err(Refusal(status, code, message)) => xml(status, error(code, &message)),
    }
}

/// Closes the connection without a word; unwinding skips the panic hook, and ends only the connection's own task.
fn hang_up() -> ! {
    resume_unwind(Box::new("the connection is closed on purpose"))
}

fn xml(status: u16, body: String) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [("content-type", "text/xml;charset=UTF-8")], body).into_response()
}

/// The region that a request is signed for, if it is signed with our key. The signature itself is AWS's business.
fn signer(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let said = headers.get("authorization")?.to_str().ok()?;
    let scope = said.strip_prefix("AWS4-HMAC-SHA256 Credential=")?.split(',').next()?;
    let mut parts = scope.split('/');
    let key = parts.next()?;
    let (_date, region, service) = (parts.next()?, parts.next()?, parts.next()?);
    (key == ACCESS_KEY && service == wanted).then(|| region.to_owned())
}

fn act(ec2: &Ec2, action: &str, form: &Form, region: &str) -> Result<String, Refusal> {
    check::parameters(action, form)?;
    match action {
        "RunInstances" => run::run(ec2, form, region),
        "DescribeInstances" => run::describe(ec2, form),
        "TerminateInstances" => run::terminate(ec2, form),
        "GetConsoleOutput" => run::console(ec2, form),
        "DescribeImages" => offers::images(form),
        "DescribeSubnets" => offers::subnets(form, region),
        "DescribeVpcs" => Ok(offers::vpcs(form)),
        "DescribeSecurityGroups" => offers::groups(form),
        "DescribeInstanceTypeOfferings" => Ok(offers::type_offerings(form, region)),
        "DescribeSpotPriceHistory" => prices::spot(form),
        "DescribeInstanceTypes" => offers::types(form),
        _ => check::no_action(action),
    }
}
