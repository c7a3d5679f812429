//! What the jobs of a real machine learn of its metadata service, where the machine was given a role for them.

use sandbox::azure;
use sandbox::cloud::Kind;

use super::super::{bootable, boots, journal};

/// What a job asks on one cloud.
struct Questions {
    /// The role that the machine is given.
    role: &'static str,
    /// What every question says.
    header: &'static str,
    /// What is answered, and a word of the answer.
    answered: &'static [(&'static str, &'static str)],
    /// What is not.
    refused: &'static [&'static str],
}

const AWS: Questions = Questions {
    role: "trainer",
    header: "X-aws-ec2-metadata-token: $token",
    answered: &[
        ("latest/meta-data/iam/security-credentials/", "sandbox-role"),
        ("latest/meta-data/iam/security-credentials/sandbox-role", "ASIASANDBOX"),
        ("latest/meta-data/placement/region", "us-west-1"),
    ],
    refused: &[
        "latest/user-data",
        "latest/meta-data/",
        "latest/meta-data/placement/../../user-data",
    ],
};

const GCP: Questions = Questions {
    role: "ci@sandbox-project.iam.gserviceaccount.com",
    header: "Metadata-Flavor: Google",
    answered: &[
        ("computeMetadata/v1/instance/service-accounts/default/token", "access_token"),
        ("computeMetadata/v1/instance/zone", "zones/"),
    ],
    refused: &[
        "computeMetadata/v1/instance/attributes/startup-script",
        "computeMetadata/v1/instance/attributes/?recursive=true",
        "computeMetadata/v1/?recursive=true",
    ],
};

const AZURE: Questions = Questions {
    role: azure::IDENTITY,
    header: "Metadata: true",
    answered: &[(
        "metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/",
        "access_token",
    )],
    refused: &[
        "metadata/instance?api-version=2021-02-01",
        "metadata/scheduledevents?api-version=2020-07-01",
    ],
};

/// A job that fails where an answer is not as it should be.
fn job(cloud: Kind, questions: &Questions) -> String {
    let url = "http://169.254.169.254";
    let mut lines = vec!["set -e".to_owned()];
    if cloud == Kind::Aws {
        lines.push(format!(
            "token=$(curl -sSf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {url}/latest/api/token)"
        ));
    }
    let get = |path: &str| format!("curl -sS --path-as-is -m 5 -H \"{}\" '{url}/{path}'", questions.header);
    for (path, word) in questions.answered {
        lines.push(format!("{} | grep '{word}' || {{ echo 'not told {path}'; exit 1; }}", get(path)));
    }
    for path in questions.refused {
        lines.push(format!(
            "{} | grep 'refused by cml-agent' || {{ echo 'told {path}'; exit 1; }}",
            get(path)
        ));
    }
    lines.push("echo told what it may know".into());
    lines.join("\n")
}

async fn tells(test: &str, cloud: Kind, questions: &Questions) {
    let Some(image) = bootable(test) else { return };
    let scene = boots(image, cloud).await;
    let run = scene.job(&job(cloud, questions));
    scene
        .launch(&[&format!("--cloud-permission-set={}", questions.role)])
        .await
        .succeeded();
    let conclusion = scene.conclusion(run).await;
    scene.all_gone().await;
    assert_eq!(conclusion, "success", "{}\n{}", journal(&scene), scene.timeline());
    assert!(scene.timeline().contains("told what it may know"), "{}", scene.timeline());
    scene.end().await;
}

#[tokio::test]
async fn a_job_on_ec2_is_told_of_its_role_and_not_of_the_user_data() {
    tells("a_job_on_ec2_is_told_of_its_role_and_not_of_the_user_data", Kind::Aws, &AWS).await;
}

#[tokio::test]
async fn a_job_on_google_cloud_is_told_of_its_account_and_not_of_the_attributes() {
    tells(
        "a_job_on_google_cloud_is_told_of_its_account_and_not_of_the_attributes",
        Kind::Gcp,
        &GCP,
    )
    .await;
}

#[tokio::test]
async fn a_job_on_azure_is_told_of_its_identity_and_not_of_the_machines_own_events() {
    tells(
        "a_job_on_azure_is_told_of_its_identity_and_not_of_the_machines_own_events",
        Kind::Azure,
        &AZURE,
    )
    .await;
}
