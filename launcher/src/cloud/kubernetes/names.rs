//! What may stand where in the cluster: names, labels, annotations and selectors. Pure.
//!
//! Rules: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>,
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.

use std::collections::BTreeMap;

use anyhow::Result;
use common::error::{Class, Failure};

use crate::cloud::Order;

/// A Job's name becomes a label of its pods: no longer than this.
const LONGEST: usize = 63;
/// The longest prefix (a domain) of a label's or an annotation's key.
const LONGEST_PREFIX: usize = 253;
/// So much of it is the launch's own, so that it is unique.
const OWN: usize = 12;

/// The value of a node selector that stands for the GPU's model, as in the old tool.
const INFER: &str = "infer";

/// What the GPUs of generic types are called in the labels of nodes: Google's names, which the old tool used too. Others stand for themselves.
///
/// Source: <https://docs.cloud.google.com/kubernetes-engine/docs/how-to/gpus>
const MODELS: [(&str, &str); 6] = [
    ("a100", "nvidia-tesla-a100"),
    ("h100", "nvidia-h100-80gb"),
    ("k80", "nvidia-tesla-k80"),
    ("l4", "nvidia-l4"),
    ("t4", "nvidia-tesla-t4"),
    ("v100", "nvidia-tesla-v100"),
];
/// Any GPU will do.
const ANY_GPU: &str = "nvidia";

/// The name of an order's Job and Secret: the runner's, as far as it is legal, and the end of the launch's id. The same order has the same name, so
/// that it cannot be made twice.
pub fn of(order: &Order) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let named: String = order.name.chars().map(legal).take(LONGEST - OWN - 1).collect();
    let own: String = order
        .launch_id
        .chars()
        .rev()
        .filter(char::is_ascii_alphanumeric)
        .take(OWN)
        .collect();
    let own: String = own.chars().rev().map(legal).collect();
    let whole = format!("{}-{own}", named.trim_matches('-'));
    let whole = whole.trim_start_matches('-');
    // A name of letters that are none of ASCII's leaves nothing.
    if whole == own { format!("cml-{own}") } else { whole.to_owned() }
}

/// `--cloud-region` and `--cloud-kubernetes-node-selector` together; `infer` is the model of the GPU, and nothing without one.
pub fn node_selector(region: &str, wanted: &[String], gpu: Option<&str>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for pair in region.split(',').chain(wanted.iter().flat_map(|pairs| pairs.split(','))) {
        let (key, value) = selector(pair)?;
        let value = match (value, gpu) {
            (INFER, None | Some(ANY_GPU)) => continue,
            (INFER, Some(gpu)) => MODELS.iter().find(|(name, _)| *name == gpu).map_or(gpu, |(_, model)| model),
            (value, _) => value,
        };
        all.insert(key.to_owned(), value.to_owned());
    }
    Ok(all)
}

fn selector(pair: &str) -> Result<(&str, &str)> {
    let split = pair.trim().split_once('=');
    split.filter(|(key, value)| is_key(key) && is_value(value)).ok_or_else(|| {
        Failure::new(Class::Usage, format!("`{pair}` selects no node"))
            .hint("write `--cloud-kubernetes-node-selector=KEY=VALUE`, with a label of the nodes")
            .into()
    })
}

/// Whether it may be the key of a label or an annotation: `NAME` or `DOMAIN/NAME`.
pub fn is_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        !prefix.is_empty() && prefix.len() <= LONGEST_PREFIX && prefix.chars().all(legal)
    };
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_domain)
}

/// Whether it may be the value of a label.
pub fn is_value(value: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let legal = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    value.is_empty() || value.len() <= LONGEST && value.chars().all(legal) && value.starts_with(ends) && value.ends_with(ends)
}

/// Whether it may be the name of a service account: a subdomain's.
pub fn is_account(name: &str) -> bool {
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let legal = |c: char| ends(c) || matches!(c, '-' | '.');
    name.len() <= LONGEST_PREFIX && name.chars().all(legal) && name.starts_with(ends) && name.ends_with(ends)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{is_key, is_value, node_selector};

    #[test]
    fn infer_is_the_model_and_nothing_without_a_gpu() {
        let wanted = ["accelerator=infer".to_owned(), "pool=ci,disk=ssd".to_owned()];
        let of = |gpu| node_selector("kubernetes.io/os=linux", &wanted, gpu).unwrap();
        let with: Vec<(String, String)> = of(Some("v100")).into_iter().collect();
        let written: Vec<String> = with.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            written,
            ["accelerator=nvidia-tesla-v100", "disk=ssd", "kubernetes.io/os=linux", "pool=ci"]
        );
        assert_eq!(of(None).len(), 3);
        assert_eq!(of(Some("nvidia")).len(), 3, "any GPU will do");
        assert_eq!(of(Some("nvidia-l40s"))["accelerator"], "nvidia-l40s");
    }

    #[test]
    fn what_selects_no_node_is_refused() {
        for pair in ["", "pool", "=x", "a b=c", "pool=-x", "/x=y", "UPPER/x=y"] {
            let error = node_selector("kubernetes.io/os=linux", &[pair.to_owned()], None).unwrap_err();
            assert!(error.to_string().contains("selects no node"), "{pair}");
        }
        assert!(is_key("cloud.google.com/gke-accelerator") && !is_key("a/b/c") && !is_key(&"x".repeat(64)));
        assert!(is_value("") && is_value("a_b.C-1") && !is_value("a:b") && !is_value(&"x".repeat(64)));
    }
}
