//! Comparing checkpoints: files, ledger folders, whole sites.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ledger::checkpoint::Checkpoint;
use ledger::note::{NOTE_BYTES_MAX, Note, Verifier};
use ledger::tile::TileReader;
use record::id::Origin;
use registry::audit::diff::{Compared, EvidenceLine, Outcome, Side, compare};
use registry::audit::missing::{Missing, SiteSide, missing, nodes};
use registry::audit::site::{FolderTiles, folders};
use registry::audit::view::{LedgerTiles, View};

use super::args::Diff;
use crate::fault::{Fault, Result, exit};
use crate::output;

/// One side as it lies on the disk.
struct Head {
    note: Vec<u8>,
    origin: String,
    /// Tiles beside it.
    tiles: Option<FolderTiles>,
    /// Keys beside it.
    vkey: Option<PathBuf>,
}

pub fn diff(command: &Diff, json: bool) -> Result<ExitCode> {
    let view = command.dir.as_deref().map(View::open).transpose()?;
    let Pairs {
        pairs,
        alone,
        missing,
    } = pairs(&command.a, &command.b, view.as_ref())?;
    let mut compared = Vec::new();
    for (a, b) in pairs {
        compared.push(one(command, view.as_ref(), &head(&a)?, &head(&b)?)?);
    }
    if compared.is_empty() && missing.is_empty() {
        return Err(Fault::usage(
            "两边没有同一账本 / the two sides have no ledger in common; give checkpoints, ledger folders or sites",
        ));
    }
    if json {
        output::json(&serde_json::json!({
            "ledgers": compared,
            "missing": missing,
            "on_one_side": alone,
        }));
    } else {
        compared.iter().for_each(show);
        missing.iter().for_each(show_missing);
        let added = |below: &&PathBuf| missing.iter().all(|one| Path::new(&one.origin) != *below);
        for below in alone.iter().filter(added) {
            output::line(format!(
                "只在后者 / on the newer side only: {}",
                below.display()
            ));
        }
    }
    let holds = compared.iter().all(Compared::holds) && missing.iter().all(|one| one.explained);
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_VERIFIED)
    })
}

/// What is compared with what.
struct Pairs {
    pairs: Vec<(PathBuf, PathBuf)>,
    /// What one of the two sites has.
    alone: Vec<PathBuf>,
    /// Of that, what the newer one lacks.
    missing: Vec<Missing>,
}

/// Refuses a side that is not there, by the name under which it was given.
fn there(chinese: &str, english: &str, path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) => {
            let (zh, en) = store::said::said(&error);
            let path = path.display();
            Err(Fault::new(
                exit::FAILED,
                "file",
                format!("{chinese} `{path}`：{zh} / {english}, `{path}`: {en}"),
            ))
        }
    }
}

/// Two files or ledger folders are one pair; two sites are one for each folder that both have.
fn pairs(a: &Path, b: &Path, view: Option<&View>) -> Result<Pairs> {
    there("旧的一边", "the older side", a)?;
    there("新的一边", "the newer side", b)?;
    let is_site = |path: &Path| path.is_dir() && !path.join("checkpoint").exists();
    if is_site(a) != is_site(b) {
        let (site, other) = if is_site(a) { (a, b) } else { (b, a) };
        return Err(Fault::usage(format!(
            "`{0}` 是站点（其中没有 checkpoint），`{1}` 是一个账本：两边须同为站点，或同为一个账本 / `{0}` is a site, for it has no checkpoint of its own, and `{1}` is one ledger: give two sites, or two ledgers",
            site.display(),
            other.display()
        )));
    }
    if !is_site(a) {
        return Ok(Pairs {
            pairs: vec![(a.to_owned(), b.to_owned())],
            alone: Vec::new(),
            missing: Vec::new(),
        });
    }
    let (first, second): (BTreeSet<PathBuf>, BTreeSet<PathBuf>) = (folders(a)?, folders(b)?);
    let both = first.intersection(&second);
    let pairs = both.map(|below| (a.join(below), b.join(below))).collect();
    let alone = first.symmetric_difference(&second).cloned().collect();
    let side = |site: &Path, folders: &BTreeSet<PathBuf>| -> Result<SiteSide> {
        let names = folders.iter().map(|below| below.to_string_lossy());
        Ok(SiteSide {
            ledgers: names.map(String::from).collect(),
            nodes: nodes(site)?,
        })
    };
    let missing = missing(&side(a, &first)?, &side(b, &second)?, view);
    Ok(Pairs {
        pairs,
        alone,
        missing,
    })
}

fn head(path: &Path) -> Result<Head> {
    let folder = path.is_dir().then(|| path.to_owned());
    let file = folder
        .as_ref()
        .map_or_else(|| path.to_owned(), |folder| folder.join("checkpoint"));
    let note = super::read(&file, NOTE_BYTES_MAX as u64)?;
    let checkpoint = Note::parse(&note)
        .ok()
        .and_then(|note| Checkpoint::parse(note.text().as_bytes()).ok())
        .ok_or_else(|| {
            Fault::new(
                exit::NOT_VERIFIED,
                "not-verified",
                format!(
                    "`{}` 不是账头 / is no signed checkpoint; fetch it again",
                    file.display()
                ),
            )
        })?;
    let vkey = folder.as_ref().map(|folder| folder.join("vkey"));
    Ok(Head {
        tiles: folder.map(|folder| FolderTiles::new(&folder, checkpoint.size())),
        origin: checkpoint.origin().to_owned(),
        note,
        vkey: vkey.filter(|path| path.exists()),
    })
}

/// The keys that count: those of the key file, else of the node, else those beside the
/// checkpoints, which then must agree.
fn keys(command: &Diff, view: Option<&View>, a: &Head, b: &Head) -> Result<Vec<Verifier>> {
    if let Some(path) = &command.vkey {
        return super::vkeys(path);
    }
    if let Some(view) = view {
        let origin = Origin::parse(&a.origin).map_err(|e| Fault::failed(e.to_string()))?;
        return Ok(view.signers(&origin, None)?);
    }
    let mut keys: Vec<Verifier> = Vec::new();
    for path in [&a.vkey, &b.vkey].into_iter().flatten() {
        let beside = super::vkeys(path)?;
        let before = keys.clone();
        for key in &beside {
            // A node may have had several keys, of which one side knows fewer; then it knows no
            // other ones.
            let same = |k: &&Verifier| k.name() == key.name() && k.kind() == key.kind();
            let (mut there, mut here) = (before.iter().filter(same), beside.iter().filter(same));
            let fewer = there.clone().all(|k| beside.contains(k));
            let other = !fewer && !here.all(|k| before.contains(k));
            if there.next().is_some() && other {
                return Err(Fault::new(
                    exit::NOT_VERIFIED,
                    "not-verified",
                    format!(
                        "两边的 vkey 对 `{}` 不一致 / the two vkey files disagree on `{0}`; give the right keys with --vkey",
                        key.name()
                    ),
                ));
            }
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    if keys.is_empty() {
        return Err(Fault::usage(
            "没有验签公钥：请用 --vkey 或 --dir / no verifier keys: give --vkey or --dir",
        ));
    }
    Ok(keys)
}

fn one(command: &Diff, view: Option<&View>, a: &Head, b: &Head) -> Result<Compared> {
    let keys = keys(command, view, a, b)?;
    let origin = Origin::parse(&a.origin).ok();
    let here = view
        .zip(origin.as_ref())
        .map(|(v, o)| LedgerTiles::new(v, o));
    fn side<'a>(head: &'a Head, here: Option<&'a dyn TileReader>) -> Side<'a> {
        Side {
            note: &head.note,
            tiles: head.tiles.as_ref().map(|t| t as &dyn TileReader).or(here),
        }
    }
    let here = here.as_ref().map(|t| t as &dyn TileReader);
    compare(side(a, here), side(b, here), &keys).map_err(|e| super::not_verified(&e))
}

fn show_missing(missing: &Missing) {
    let what = if missing.explained {
        "说明 / explained"
    } else {
        "缺失 / MISSING"
    };
    let Missing { origin, zh, en, .. } = missing;
    output::line(format!("{origin}：{what}"));
    output::line(format!("   {zh} / {en}"));
}

fn show(compared: &Compared) {
    let [old, new] = compared.sizes;
    let arrow = match compared.outcome {
        Outcome::Shorter { .. } => format!("{new} → {old}"),
        _ => format!("{old} → {new}"),
    };
    output::line(format!("{}：{arrow}", compared.origin));
    match &compared.outcome {
        Outcome::Same => output::line("   同一账头 / the same checkpoint"),
        Outcome::Extends { entries, .. } => output::line(format!(
            "   只增未改：增加 {entries} 条，一致性证明成立 / it only grew, by {entries} entries: the consistency proof holds"
        )),
        Outcome::Shorter { entries, .. } => output::line(format!(
            "   后者比前者短 {entries} 条：账本被退回，或两边的次序给反了（先旧后新） / SHORTER by {entries} entries than the first: it was rolled back, or the two were given in the wrong order (the older comes first)"
        )),
        Outcome::Evidence(line) => {
            let what = match line {
                EvidenceLine::Roots { .. } => format!("{old} 条有两个根 / two roots at one size"),
                EvidenceLine::Leaves { index, .. } => {
                    format!("第 {index} 条有两个内容 / two leaves at index {index}")
                }
            };
            output::line(format!(
                "   证据：账本签了两个历史，{what} / EVIDENCE: the log signed two histories. Keep both sides; `--json` gives the documents that convince anybody"
            ));
            for root in &compared.roots {
                output::line(format!("   根 / root {root}"));
            }
        }
        Outcome::Contradiction { root, .. } => output::line(format!(
            "   矛盾：后者之下前 {old} 条的根是 {root}，账本却签过 {} / CONTRADICTION: the log signed another root for its first {old} entries than the larger checkpoint rests on. Keep both, and get the tiles of the smaller one to have evidence",
            compared.roots[0]
        )),
        Outcome::Unproven { what } => output::line(format!(
            "   不能证明一致；这不是证据 / not proven to be consistent, which is no evidence: {what}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_not_there_is_named_and_not_a_checkpoint_in_it() {
        // The folder of this crate is there, and has no checkpoint.
        let (none, site) = (Path::new("/nowhere/none"), Path::new("."));
        for (a, b, side) in [
            (none, site, "the older side"),
            (site, none, "the newer side"),
        ] {
            let told = pairs(a, b, None).err().unwrap().message;
            let (chinese, english) = told.split_once(" / ").unwrap();
            assert!(chinese.contains("`/nowhere/none`"), "{told}");
            assert!(chinese.contains("请核对路径"), "{told}");
            assert!(english.contains(side), "{told}");
            assert!(english.contains("`/nowhere/none`"), "{told}");
            assert!(!told.contains("none/checkpoint"), "{told}");
        }
    }

    #[test]
    fn a_site_is_not_compared_with_one_ledger() {
        let (site, file) = (Path::new("."), Path::new("Cargo.toml"));
        let fault = pairs(site, file, None).err().unwrap();
        assert_eq!(fault.exit, exit::USAGE);
        assert!(fault.message.contains("give two sites, or two ledgers"));
    }
}
