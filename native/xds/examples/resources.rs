//! Decodes the resources of a DiscoveryResponse file and says what came of each:
//! `cargo run -p tidegate-xds --example resources -- clusters.pb`.

use tidegate_xds::{Decoder, Format, decode_discovery_file, type_url};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: resources FILE")?;
    let extension = std::path::Path::new(&path)
        .extension()
        .and_then(std::ffi::OsStr::to_str);
    let format = match extension {
        Some("json") => Format::Json,
        Some("pb") => Format::Pb,
        _ => Format::Yaml,
    };
    let response = decode_discovery_file(&std::fs::read(&path)?, format)?;
    let decoder = Decoder::new();
    let started = std::time::Instant::now();
    let mut accepted = 0;
    for (name, bytes) in &response.resources {
        let outcome = match response.type_url.as_str() {
            type_url::LISTENER => decoder.listener(bytes).map(drop),
            type_url::CLUSTER => decoder.cluster(bytes).map(drop),
            type_url::CLUSTER_LOAD_ASSIGNMENT => decoder.cluster_load_assignment(bytes).map(drop),
            type_url::ROUTE_CONFIGURATION => decoder.route_configuration(bytes).map(drop),
            other => return Err(format!("{other} is not decoded").into()),
        };
        match outcome {
            Ok(()) => accepted += 1,
            Err(rejected) => println!("{name}: {}: {}", rejected.field_path, rejected.reason),
        }
    }
    for warning in decoder.take_warnings() {
        println!("warning: {warning}");
    }
    let total = response.resources.len();
    println!(
        "{}: {accepted} of {total} accepted in {:?}",
        response.type_url,
        started.elapsed()
    );
    Ok(())
}
