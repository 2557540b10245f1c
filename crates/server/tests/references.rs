//! The generated pages of `docs/` say what the code says. `./dev gen` writes them again (FRAMEHOOK_GENERATE=1).

use std::path::Path;

use framehook_server::config::Config;
use framehook_server::telemetry::Metrics;

fn agrees_with(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("FRAMEHOOK_GENERATE").is_some() {
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    assert!(kept == text, "docs/{name} is out of date; run ./dev gen and look at the difference");
}

#[test]
fn config_reference_is_up_to_date() {
    agrees_with("config.md", &Config::reference());
}

#[test]
fn metrics_reference_is_up_to_date() {
    agrees_with("metrics.md", &Metrics::reference());
}
