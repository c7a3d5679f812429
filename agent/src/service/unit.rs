//! The text of an installed runner's unit, and of the file of its options. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::place::Place;

/// The unit, with `@@name@@` and the like for what differs.
const TEMPLATE: &str = include_str!("../../systemd/cml-runner.service");
/// What `ProtectHome=` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// The unit of a runner, which `launcher` starts; `workdir` is the directory of its work, if it is not in its state.
pub fn unit(place: &Place, launcher: &Path, workdir: Option<&Path>) -> String {
    let at_home = workdir.is_some_and(|dir| HOMES.iter().any(|home| dir.starts_with(home)));
    let protect_home = if at_home {
        "# Its work lies in a home: homes are not hidden."
    } else {
        "ProtectHome=yes"
    };
    let path = |path: &Path| specifier(&path.display().to_string());
    TEMPLATE
        .replace("@@name@@", &place.name)
        .replace("@@options@@", &path(&place.options()))
        .replace("@@token@@", &path(&place.token()))
        .replace("@@state@@", &path(&place.state()))
        .replace("@@launcher@@", &path(launcher))
        .replace("@@protect_home@@", protect_home)
}

/// A `%` begins a specifier. Source: systemd.unit(5).
fn specifier(text: &str) -> String {
    text.replace('%', "%%")
}

/// The options as systemd reads them: `NAME="value"` a line, where a value may go over several. Source: `EnvironmentFile=` in systemd.exec(5).
pub fn options(options: &BTreeMap<String, String>) -> String {
    let mut text = String::from("# The options of this runner: `systemctl reload` puts changes into effect once its job is done.\n");
    for (name, value) in options {
        let mut quoted = String::with_capacity(value.len());
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name}=\"{quoted}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::{Place, options, unit};

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/service/gpu-1.service");

    #[test]
    fn the_unit_is_checked_in() {
        let now = unit(&Place::of("gpu-1").unwrap(), Path::new("/usr/bin/cml"), None);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(GOLDEN, &now).unwrap();
        }
        let kept = std::fs::read_to_string(GOLDEN).unwrap_or_default();
        assert_eq!(kept, now, "run `make golden` and look at the diff");
        assert!(!now.contains("@@"), "{now}");
    }

    #[test]
    fn a_path_is_taken_as_it_is_and_work_at_home_is_reached() {
        let place = Place::of("gpu-1").unwrap();
        let text = unit(&place, Path::new("/opt/100% mine/cml"), Some(Path::new("/home/ci/work")));
        assert!(text.contains("ExecStart=\"/opt/100%% mine/cml\" runner\n"), "{text}");
        assert!(!text.contains("ProtectHome="), "{text}");
        let text = unit(&place, Path::new("/usr/bin/cml"), Some(Path::new("/data/work")));
        assert!(text.contains("\nProtectHome=yes\n"), "{text}");
    }

    #[test]
    fn no_value_ends_its_line_or_its_quotes() {
        let pairs = [("CML_RUNNER_LABELS", "a,b"), ("CML_RUNNER_X", "say \"hi\" $HOME \\n\nsecond")];
        let text = options(&pairs.map(|(name, value)| (name.into(), value.into())).into());
        let own: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            own,
            [r#"CML_RUNNER_LABELS="a,b""#, r#"CML_RUNNER_X="say \"hi\" \$HOME \\n"#, r#"second""#]
        );
    }

    #[test]
    fn a_stop_may_take_as_long_as_on_an_instance() {
        let of = |unit: &str| unit.lines().find(|line| line.starts_with("TimeoutStopSec=")).map(str::to_owned);
        let instance = include_str!("../../systemd/cml-agent.service");
        assert_eq!(of(super::TEMPLATE), of(instance));
    }
}
