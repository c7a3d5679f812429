//! What a cloud's machine finds on its disk, and in its firmware, that its root file system has not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cloud::Kind;

/// Its absolute path, and what is in it.
type File = (String, String);

/// Azure's name for its own machines. Source: [cloud-init](https://docs.cloud-init.io/en/latest/reference/datasources/azure.html).
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

/// What is where, for a machine that starts with `script`, and whose agent is told `env` besides what every machine's agent finds out.
pub fn files(cloud: Kind, script: &str, env: &[(&str, String)]) -> Vec<File> {
    let (source, firmware): (_, &[(&str, &str)]) = match cloud {
        Kind::Aws => (
            "Ec2",
            &[
                ("product_uuid", "ec2e1916-9099-7caf-fd21-012345abcdef"),
                ("product_serial", "ec2e1916-9099-7caf-fd21-012345abcdef"),
                ("product_name", "t3.small"),
                ("sys_vendor", "Amazon EC2"),
            ],
        ),
        Kind::Azure => (
            "Azure",
            &[
                ("chassis_asset_tag", AZURE_CHASSIS),
                ("product_uuid", "02aab8a4-74ef-476e-8182-f6d2ba4166a6"),
                ("sys_vendor", "Microsoft Corporation"),
                ("product_name", "Virtual Machine"),
            ],
        ),
        Kind::Gcp => (
            "GCE",
            &[
                ("product_name", "Google Compute Engine"),
                ("product_serial", "GoogleCloud-0123456789"),
                ("sys_vendor", "Google"),
            ],
        ),
        // No machine boots there: a pod has no first process of its own.
        Kind::Kubernetes => ("None", &[]),
    };
    let firmware = firmware
        .iter()
        .map(|(name, text)| (format!("/etc/firmware/{name}"), (*text).to_owned()));
    let settings = format!("datasource_list: [ {source} ]\nlocale: C.UTF-8\nssh_genkeytypes: [ed25519]\n");
    let environment: String = env.iter().fold("[Service]\n".to_owned(), |text, (name, value)| {
        text + &format!("Environment={name}={value}\n")
    });
    let own = [
        ("/etc/cloud/cloud.cfg.d/99-sandbox.cfg".to_owned(), settings),
        ("/etc/systemd/system/cml-agent.service.d/sandbox.conf".to_owned(), environment),
    ];
    let special = match cloud {
        Kind::Azure => vec![("/var/lib/cloud/seed/azure/ovf-env.xml".to_owned(), provisioning_disk(script))],
        Kind::Gcp => vec![
            (
                "/etc/hosts".to_owned(),
                "127.0.0.1 localhost\n169.254.169.254 metadata.google.internal metadata\n".to_owned(),
            ),
            // Google's own program, which fetches the script.
            (
                "/etc/systemd/system/multi-user.target.d/google.conf".to_owned(),
                "[Unit]\nWants=google-startup-scripts.service\n".to_owned(),
            ),
        ],
        Kind::Aws | Kind::Kubernetes => Vec::new(),
    };
    firmware.chain(own).chain(special).collect()
}

/// What Azure gives a machine on a disk of its own at its first boot.
fn provisioning_disk(script: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<ns0:Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns0="http://schemas.dmtf.org/ovf/environment/1" xmlns:ns1="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<ns1:ProvisioningSection><ns1:Version>1.0</ns1:Version>
<ns1:LinuxProvisioningConfigurationSet><ns1:ConfigurationSetType>LinuxProvisioningConfiguration</ns1:ConfigurationSetType>
<ns1:HostName>runner</ns1:HostName><ns1:UserName>azureuser</ns1:UserName><ns1:DisableSshPasswordAuthentication>true</ns1:DisableSshPasswordAuthentication>
<ns1:CustomData>{}</ns1:CustomData></ns1:LinuxProvisioningConfigurationSet></ns1:ProvisioningSection>
<ns1:PlatformSettingsSection><ns1:Version>1.0</ns1:Version><ns1:PlatformSettings><ns1:ProvisionGuestAgent>false</ns1:ProvisionGuestAgent>
</ns1:PlatformSettings></ns1:PlatformSettingsSection></ns0:Environment>
"#,
        STANDARD.encode(script)
    )
}
