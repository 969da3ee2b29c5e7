//! Writes the valid bytes of every check into `corpus/`, where fuzzing begins.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for check in &fuzz::checks::CHECKS {
        let folder = corpus.join(check.name);
        std::fs::create_dir_all(&folder)?;
        for (at, bytes) in fuzz::seeds::of(check.name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{at}")), bytes)?;
        }
    }
    Ok(())
}
