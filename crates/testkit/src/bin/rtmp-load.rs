//! Publishes one file as many streams, each at its own pace, and says how that went: see [`framehook_testkit::load`].

use anyhow::Result;
use clap::Parser;
use framehook_testkit::load::{self, Arguments};

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let report = load::run(&arguments)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report:#?}");
    }
    Ok(())
}
