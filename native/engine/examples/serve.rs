//! Runs a bootstrap file without Python: `serve FILE [CONCURRENCY]`. Discovery is not served; for trying the Rust side out.

use std::time::Duration;

use tidegate_engine::{Engine, Event, Options};
use tidegate_xds::Format;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: serve FILE [CONCURRENCY]")?;
    let concurrency = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let format = match std::path::Path::new(&path).extension() {
        Some(extension) if extension == "json" => Format::Json,
        _ => Format::Yaml,
    };
    let options = Options {
        config_path: path.clone(),
        concurrency,
        file_flush_interval: Duration::from_millis(200),
        ..Options::default()
    };
    let mut engine = Engine::new(&std::fs::read(&path)?, format, options)?;
    engine.start()?;
    loop {
        let events = engine.take_events();
        if events.contains(&Event::Shutdown) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    engine.shutdown();
    Ok(())
}
