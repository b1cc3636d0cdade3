//! Texts that a person reads, compared with those in `tests/golden`.

use std::{env, fs, path::Path};

/// Panics where `text` differs from the golden file. `UPDATE_GOLDEN=1` writes the file instead.
pub(crate) fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden")
        .join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == text,
        "{file} differs; UPDATE_GOLDEN=1 cargo test rewrites it\n--- golden\n{golden}\n--- now\n{text}"
    );
}
