//! Jobs of the repository that hold logic. Run by `./dev`.

#![expect(clippy::disallowed_methods, reason = "starts git and ffmpeg, and waits for them")]

mod demo_clip;
mod tidy;

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the workspace");
    match std::env::args().nth(1).as_deref() {
        Some("clip") => demo_clip::generate(&root.join("testdata/demo/framehook-demo.flv")),
        Some("tidy") => tidy::run(root),
        _ => bail!("usage: cargo run -p xtask -- tidy|clip"),
    }
}
