//! The life of an instance: boots, runs, ends.

use std::sync::Arc;

use super::{Ec2, State, lock, run};
use crate::events::Source;
use crate::imds;
use crate::instance::{Boot, Machine, user_data};

/// Boots an instance in the background.
pub fn start(ec2: &Ec2, id: &str) {
    let (owner, name) = (ec2.clone(), id.to_owned());
    lock(&ec2.0.tasks).spawn(async move { live(owner, name).await });
}

async fn live(ec2: Ec2, id: String) {
    let Some((form, metadata, end)) = ec2.with(&id, |instance| {
        (instance.form.clone(), instance.metadata.clone(), Arc::clone(&instance.end))
    }) else {
        return;
    };
    let stops = form
        .get("InstanceInitiatedShutdownBehavior")
        .is_none_or(|behaviour| behaviour != "terminate")
        && !run::is_spot(&form);
    let booted = async {
        let service = imds::serve(metadata).await?;
        let boot = Boot {
            id: id.clone(),
            dir: ec2.machine_dir(&id),
            isolation: ec2.0.options.isolation,
            user_data: user_data(form.get("UserData").map(String::as_str).unwrap_or_default())?,
            metadata: service.url(),
            metadata_interval: ec2.0.options.metadata_interval,
            events: ec2.0.events.clone(),
        };
        anyhow::Ok((service, Machine::boot(boot)?))
    };
    let reason = match booted.await {
        Ok((_service, mut machine)) => {
            ec2.with(&id, |instance| {
                if instance.state == State::Pending {
                    instance.state = State::Running;
                }
            });
            tokio::select! {
                () = end.notified() => {}
                () = machine.powered_off() => {
                    ec2.terminate(&id, "Client.InstanceInitiatedShutdown");
                }
            }
            machine.destroy().await;
            None
        }
        Err(error) => Some(format!("{error:#}")),
    };
    let reason = ec2.with(&id, |instance| {
        let off = instance.reason == "Client.InstanceInitiatedShutdown";
        instance.state = if off && stops { State::Stopped } else { State::Terminated };
        if let Some(reason) = reason {
            instance.reason = reason;
        }
        instance.reason.clone()
    });
    let what = if stops && reason.as_deref() == Some("Client.InstanceInitiatedShutdown") {
        "instance-stopped"
    } else {
        "instance-terminated"
    };
    ec2.0.events.push(Source::Cloud, what, &id, reason.unwrap_or_default());
}
