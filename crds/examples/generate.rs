//! Writes the CRDs beside this crate, one file for each kind. A test fails when they are stale.

use std::path::Path;
use std::{error, fs};

fn main() -> Result<(), Box<dyn error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    for crd in phoenix_crds::crds() {
        let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
        fs::write(&file, phoenix_crds::to_yaml(&crd)?)?;
    }
    Ok(())
}
