//! Hands the browser's libraries to `src/web/assets.rs`, as npm unpacked them, and has migrations looked at again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

/// Where it lies below `node_modules`, and what it is called here.
const LIBRARIES: [(&str, &str); 2] = [
    ("uplot/dist/uPlot.iife.min.js", "uplot.js"),
    ("uplot/dist/uPlot.min.css", "uplot.css"),
];

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    // `sqlx::migrate!` reads the folder while it is compiled, which cargo does not know.
    println!("cargo::rerun-if-changed=migrations");
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ui/node_modules");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for (from, to) in LIBRARIES {
        let from = modules.join(from);
        println!("cargo::rerun-if-changed={}", from.display());
        if let Err(error) = fs::copy(&from, out.join(to)) {
            let from = from.display();
            println!(
                "cargo::error={from}: {error}; `make deps-ui` fetches the libraries of the pages"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
