//! Decodes a bootstrap and says what came of it: `cargo run -p tidegate-xds --example validate -- envoy.yaml`.

use tidegate_xds::{Decoder, Format, Overrides};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: validate FILE")?;
    let contents = std::fs::read(&path)?;
    let format = if std::path::Path::new(&path)
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        Format::Json
    } else {
        Format::Yaml
    };
    match Decoder::new().bootstrap(&contents, format, &Overrides::default()) {
        Ok(loaded) => {
            for warning in &loaded.bootstrap.warnings {
                println!("warning: {warning}");
            }
            println!("configuration '{path}' OK");
            Ok(())
        }
        Err(rejected) => Err(rejected.to_string().into()),
    }
}
