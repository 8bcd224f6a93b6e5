//! A certificate for the servers under test, made when a run begins. Knows nothing of who uses it.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// Writes a new self-signed certificate for `name` with a P-256 key, in PEM: `cert.pem`, `key.pem`, and both in
/// `both.pem`. Only the owner may read them.
pub fn write(name: &str, directory: &Path) -> Result<(), String> {
    // rcgen's default key is P-256.
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([name.to_owned()])
        .map_err(|error| format!("certificate for {name}: {error}"))?;
    let (cert, key) = (cert.pem(), signing_key.serialize_pem());
    for (file, texts) in [
        ("cert.pem", &[&cert][..]),
        ("key.pem", &[&key]),
        ("both.pem", &[&cert, &key]),
    ] {
        let path = directory.join(file);
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut opened| {
                texts
                    .iter()
                    .try_for_each(|text| opened.write_all(text.as_bytes()))
            })
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
