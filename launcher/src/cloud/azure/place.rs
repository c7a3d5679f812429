//! What an order is made of: image, disk, region, zone, and the types to try.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::error::{Class, Failure};
use common::spec::CloudKind;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::body::Identity;
use crate::bootstrap;
use crate::catalog::{self, Candidate, Place};
use crate::cloud::Order;
use crate::options::{CloudOptions, metadata};

/// The smallest disk that the image for GPUs fits on, in GB ([its marketplace page][image]); any other image is smaller than the default.
///
/// [image]: https://learn.microsoft.com/en-us/azure/virtual-machines/azure-hpc-vm-images
const GPU_DISK: u32 = 64;
/// What a managed identity's resource id looks like.
const IDENTITY: &str = "/providers/microsoft.managedidentity/userassignedidentities/";
/// The parts of an image of the marketplace.
const URN_PARTS: usize = 4;

/// What a tag may be, in characters, and what its key may not hold ([limits]).
///
/// [limits]: https://learn.microsoft.com/en-us/azure/azure-resource-manager/management/tag-resources#limitations
const TAG_VALUE: usize = 256;
const TAG_KEY: usize = 512;
const NOT_IN_KEYS: [char; 8] = ['<', '>', '%', '&', '\\', '?', '/', '\0'];
const RESERVED: [&str; 3] = ["microsoft", "azure", "windows"];
/// Our own keys that a user may not write in another case.
const OWN_KEYS: [&str; 1] = ["Name"];

/// What every attempt of an order has in common.
pub struct Parts {
    /// The name of the group, and of its machine.
    pub name: String,
    /// Where.
    pub place: Place,
    /// `imageReference`.
    pub image: Value,
    /// In GB.
    pub disk: u32,
    /// The image's own user.
    pub user: String,
    /// The start-up data, packed and in base64.
    pub custom_data: String,
    /// Of a key that nobody has.
    pub public_key: String,
    /// The types, the best first.
    pub candidates: Vec<Candidate>,
}

impl Parts {
    /// Of an order; nothing is asked.
    pub fn of(order: &Order) -> Result<Self> {
        let options = &order.options;
        let candidates = catalog::resolve(CloudKind::Azure, &options.cloud_type, options.cloud_gpu.as_deref())?;
        let first = candidates.first().context("the machine type has no candidates")?;
        let query = catalog::image(CloudKind::Azure, first.gpu.is_some())?;
        let standard = format!("{}:{}", query.owner, query.pattern(first.arch));
        let smallest = if first.gpu.is_some() && options.cloud_image.is_none() {
            GPU_DISK
        } else {
            0
        };
        Ok(Self {
            name: name(&order.launch_id),
            place: catalog::region(CloudKind::Azure, &options.cloud_region)?,
            image: image(options.cloud_image.as_deref().unwrap_or(&standard))?,
            disk: options.cloud_hdd_size.max(smallest),
            user: query.user,
            custom_data: STANDARD.encode(bootstrap::gzip(order.startup_data.as_bytes())?),
            public_key: throwaway_key()?,
            candidates,
        })
    }

    /// The zone's number: `1` of `eastus-1`.
    pub fn zone(&self) -> Option<&str> {
        self.place.zone.as_deref()?.rsplit_once('-').map(|(_, number)| number)
    }
}

/// What a launch's group is called: Azure does not tell upper from lower case.
pub fn name(launch_id: &str) -> String {
    launch_id.to_ascii_lowercase()
}

/// An image of the marketplace (`PUBLISHER:OFFER:SKU:VERSION`), or a resource of the user's or of a gallery's.
pub fn image(text: &str) -> Result<Value> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("/subscriptions/") {
        return Ok(json!({ "id": text }));
    }
    if lower.starts_with("/communitygalleries/") {
        return Ok(json!({ "communityGalleryImageId": text }));
    }
    if lower.starts_with("/sharedgalleries/") {
        return Ok(json!({ "sharedGalleryImageId": text }));
    }
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [publisher, offer, sku, version] if parts.len() == URN_PARTS && parts.iter().all(|part| !part.is_empty()) => {
            Ok(json!({ "publisher": publisher, "offer": offer, "sku": sku, "version": version }))
        }
        _ => Err(Failure::new(Class::Usage, format!("`--cloud-image={text}` is no image of Azure's"))
            .hint("give `PUBLISHER:OFFER:SKU:VERSION`, such as `Canonical:ubuntu-24_04-lts:server:latest`, or an image's resource id")
            .into()),
    }
}

/// The identities of `--cloud-permission-set`; none where there are none.
pub fn identities(options: &CloudOptions) -> Result<Option<Identity>> {
    let Some(given) = &options.cloud_permission_set else {
        return Ok(None);
    };
    let ids: Vec<String> = given
        .split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(str::to_owned)
        .collect();
    let is_id = |id: &String| {
        let lower = id.to_ascii_lowercase();
        lower.starts_with("/subscriptions/")
            && lower
                .split_once(IDENTITY)
                .is_some_and(|(_, name)| !name.is_empty() && !name.contains('/'))
            && id.chars().count() <= TAG_VALUE
    };
    if ids.is_empty() || !ids.iter().all(is_id) {
        return Err(
            Failure::new(Class::Usage, format!("`--cloud-permission-set={given}` names no user-assigned identities"))
                .hint(format!(
                    "give resource ids, separated by commas: `/subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME`, each of at most {TAG_VALUE} characters"
                ))
                .into(),
        );
    }
    Ok(Some(Identity::Given(ids)))
}

/// Refuses tags that Azure would.
pub fn check_tags(options: &CloudOptions) -> Result<()> {
    for pair in &options.cloud_metadata {
        let (key, value) = metadata(pair)?;
        let lower = key.to_ascii_lowercase();
        let is_bad = key.chars().count() > TAG_KEY
            || key.contains(NOT_IN_KEYS)
            || RESERVED.iter().any(|prefix| lower.starts_with(prefix))
            || OWN_KEYS.iter().any(|own| key != *own && own.eq_ignore_ascii_case(key))
            || lower.starts_with("cml-")
            || value.chars().count() > TAG_VALUE;
        if is_bad {
            return Err(Failure::new(Class::Usage, format!("`--cloud-metadata={pair}` is no tag that Azure takes"))
                .hint(format!(
                    "a key has at most {TAG_KEY} characters, none of `<>%&\\?/`, and does not begin with {}; a value has at most {TAG_VALUE}; upper and lower case of a key are the same",
                    RESERVED.join(", ")
                ))
                .into());
        }
    }
    Ok(())
}

/// The public half of a key whose private half is forgotten here: Azure makes no Linux machine without a password or a key, and takes [Ed25519][keys].
/// Who may log in is the start-up data's business.
///
/// [keys]: https://learn.microsoft.com/en-us/azure/virtual-machines/linux/mac-create-ssh-keys#supported-ssh-key-formats
fn throwaway_key() -> Result<String> {
    const KIND: &[u8] = b"ssh-ed25519";
    let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).and_then(|pair| Ok(Ed25519KeyPair::from_pkcs8(pair.as_ref())?));
    let pair = pair.map_err(|_| anyhow::anyhow!("a key cannot be made"))?;
    let mut blob = Vec::new();
    for part in [KIND, pair.public_key().as_ref()] {
        blob.extend(u32::try_from(part.len())?.to_be_bytes());
        blob.extend(part);
    }
    Ok(format!("ssh-ed25519 {} cml", STANDARD.encode(blob)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use ssh_key::PublicKey;

    use super::{image, throwaway_key};

    #[test]
    fn images_are_of_the_marketplace_or_resources() {
        assert_eq!(image("Canonical:ubuntu-24_04-lts:server:latest").unwrap()["sku"], "server");
        let id = "/subscriptions/x/resourceGroups/g/providers/Microsoft.Compute/images/i";
        assert_eq!(image(id).unwrap()["id"], id);
        assert!(
            image("/CommunityGalleries/g/Images/i/Versions/1")
                .unwrap()
                .get("communityGalleryImageId")
                .is_some()
        );
        for text in ["", "ami-1", "a:b:c", "a:b::d", "a:b:c:d:e", "/elsewhere"] {
            assert!(image(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_key_is_one_and_another_each_time() {
        let (one, two) = (throwaway_key().unwrap(), throwaway_key().unwrap());
        assert_ne!(one, two);
        assert!(PublicKey::from_openssh(&one).unwrap().algorithm().is_ed25519());
    }
}
