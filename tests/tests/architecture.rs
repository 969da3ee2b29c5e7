//! The structure of the workspace: which crate may use which, and what pure crates may not touch.
//!
//! Owns the list of allowed edges. An edge that is not in it is a decision: write it down in
//! `docs/decisions/`, then add it here. The sources are read as text, so the rules hold for
//! code that is not compiled on this machine too.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crate, layer, and the crates that it may use outside its tests. `node` may use any.
const CRATES: [(&str, u8, &[&str]); 17] = [
    ("record", 0, &[]),
    ("ledger", 0, &[]),
    ("store", 0, &[]),
    ("seal", 1, &["record", "ledger"]),
    ("policy", 1, &["record"]),
    ("backup", 1, &["store"]),
    ("sync", 1, &["record", "ledger"]),
    ("sample", 1, &["record"]),
    ("watermark", 2, &["record"]),
    ("index", 2, &["record"]),
    ("p2p", 2, &[]),
    ("ferry", 2, &["record", "ledger", "seal", "sync"]),
    (
        "registry",
        3,
        &[
            "record",
            "ledger",
            "store",
            "seal",
            "policy",
            "sync",
            "watermark",
            "index",
            "ferry",
        ],
    ),
    ("api", 4, &["record", "ledger", "registry", "watermark"]),
    ("console", 4, &["record", "registry"]),
    (
        "node",
        5,
        &[
            "record",
            "ledger",
            "store",
            "seal",
            "policy",
            "sync",
            "sample",
            "backup",
            "watermark",
            "index",
            "p2p",
            "ferry",
            "registry",
            "api",
            "console",
        ],
    ),
    ("tests", 6, &[]),
];

/// Values in, values out: the clock and randomness are arguments.
const PURE: [&str; 8] = [
    "record",
    "ledger",
    "seal",
    "policy",
    "index",
    "watermark",
    "sync",
    "ferry",
];

/// What only one crate may depend on, so that it can be replaced there.
const KEPT_APART: [(&str, &str); 3] = [
    ("libp2p", "p2p"),
    ("sled", "store"),
    ("cedar-policy", "policy"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder(name: &str) -> PathBuf {
    match name {
        "node" | "tests" => root().join(name),
        _ => root().join("crates").join(name),
    }
}

fn manifest(name: &str) -> String {
    std::fs::read_to_string(folder(name).join("Cargo.toml")).unwrap()
}

/// The dependencies in a manifest, those of tests apart from all others.
#[derive(Default)]
struct Dependencies {
    normal: BTreeSet<String>,
    tests: BTreeSet<String>,
}

/// Reads a manifest, and refuses spellings that would hide a dependency from this test.
fn dependencies(manifest: &str) -> Result<Dependencies, String> {
    let mut found = Dependencies::default();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
            if section.contains("dependencies") && !section.ends_with("dependencies") {
                return Err(format!("write `[{section}]` as one line of its table"));
            }
        } else if section.ends_with("dependencies") && !line.is_empty() && !line.starts_with('#') {
            let (key, value) = line
                .split_once('=')
                .ok_or("write a dependency on one line")?;
            let key = key.trim().trim_end_matches(".workspace").to_owned();
            let from_workspace = line.contains("workspace = true");
            if !from_workspace || value.contains("package =") || value.contains("path =") {
                return Err(format!(
                    "take `{key}` from `[workspace.dependencies]`, under its own name"
                ));
            }
            match section.ends_with("dev-dependencies") {
                true => found.tests.insert(key),
                false => found.normal.insert(key),
            };
        }
    }
    Ok(found)
}

fn dependencies_of(name: &str) -> Dependencies {
    dependencies(&manifest(name)).unwrap_or_else(|why| panic!("{name}/Cargo.toml: {why}"))
}

fn all_dependencies() -> BTreeMap<&'static str, Dependencies> {
    CRATES
        .iter()
        .map(|(name, ..)| (*name, dependencies_of(name)))
        .collect()
}

/// All `.rs` files below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else {
        return found;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Source without comments, and without what stands in quotes.
fn code_only(source: &str) -> String {
    let text: Vec<char> = source.chars().collect();
    let starts = |at: usize, with: &str| {
        with.chars()
            .enumerate()
            .all(|(i, c)| text.get(at + i) == Some(&c))
    };
    let mut code = String::new();
    let mut at = 0;
    while at < text.len() {
        let in_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
        if starts(at, "//") {
            while at < text.len() && text[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            loop {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                } else {
                    at += 1;
                }
                if depth == 0 || at >= text.len() {
                    break;
                }
            }
        } else if !in_word && (starts(at, "r\"") || starts(at, "r#") || starts(at, "br")) {
            let mut quote = at + 1 + usize::from(text[at] == 'b');
            let mut end = String::from("\"");
            while text.get(quote) == Some(&'#') {
                end.push('#');
                quote += 1;
            }
            if text.get(quote) == Some(&'"') {
                at = quote + 1;
                while at < text.len() && !starts(at, &end) {
                    at += 1;
                }
                at += end.len();
                code.push_str("\"\"");
            } else {
                code.push(text[at]);
                at += 1;
            }
        } else if text[at] == '"' {
            at += 1;
            while at < text.len() && text[at] != '"' {
                at += 1 + usize::from(text[at] == '\\');
            }
            at += 1;
            code.push_str("\"\"");
        } else if text[at] == '\'' && text.get(at + 1) == Some(&'\\') {
            at += 3;
            while at < text.len() && text[at] != '\'' {
                at += 1;
            }
            at += 1;
        } else if text[at] == '\'' && text.get(at + 2) == Some(&'\'') {
            at += 3;
        } else {
            code.push(text[at]);
            at += 1;
        }
    }
    code
}

/// Code without the items under `#[cfg(test)]`; their module files, if any, are added to `tests`.
fn without_tests(path: &Path, code: &str, tests: &mut BTreeSet<PathBuf>) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        kept.push_str(&rest[..at]);
        let item = &rest[at + MARK.len()..];
        let mut depth = 0usize;
        let end = item
            .char_indices()
            .find(|(_, c)| match c {
                '{' | '(' | '[' => {
                    depth += 1;
                    false
                }
                ')' | ']' => {
                    depth -= 1;
                    false
                }
                '}' => {
                    depth -= 1;
                    depth == 0
                }
                ';' => depth == 0,
                _ => false,
            })
            .map_or(item.len(), |(end, _)| end + 1);
        if let Some(module) = item[..end].trim().strip_suffix(';')
            && let Some((_, module)) = module.split_once("mod ")
        {
            tests.extend(module_files(path, module.trim()));
        }
        rest = &item[end..];
    }
    kept.push_str(rest);
    kept
}

/// Where a module declared in a file may lie.
fn module_files(declared_in: &Path, module: &str) -> [PathBuf; 2] {
    let folder = declared_in.parent().unwrap();
    let stem = declared_in.file_stem().unwrap();
    let folder = match stem.to_str().unwrap() {
        "lib" | "main" | "mod" => folder.to_owned(),
        _ => folder.join(stem),
    };
    [
        folder.join(format!("{module}.rs")),
        folder.join(module).join("mod.rs"),
    ]
}

/// The code of a crate outside its tests, by file.
fn code_of(name: &str) -> BTreeMap<PathBuf, String> {
    let mut tests = BTreeSet::new();
    let mut code = BTreeMap::new();
    for path in sources(&folder(name).join("src")) {
        let source = std::fs::read_to_string(&path).unwrap();
        let kept = without_tests(&path, &code_only(&source), &mut tests);
        code.insert(path, kept);
    }
    code.retain(|path, _| {
        let is_below = |test: &PathBuf| path.starts_with(test.with_extension(""));
        !tests.contains(path) && !tests.iter().any(is_below)
    });
    code
}

/// Whether a path such as `std::fs` is named, also within a list: `use std::{fs, io}`.
fn names(code: &str, path: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |code: &str, word: &str| {
        code.match_indices(word).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    };
    let tight: String = code.split_whitespace().collect();
    if whole(code, path) || path.contains("::") && whole(&tight, path) {
        return true;
    }
    let Some((parent, last)) = path.rsplit_once("::") else {
        return false;
    };
    let list = format!("{parent}::{{");
    tight.match_indices(&list).any(|(at, _)| {
        let inside = &tight[at + list.len()..];
        let end = inside.find(';').unwrap_or(inside.len());
        whole(&inside[..end], last)
    })
}

#[test]
fn every_crate_of_the_workspace_is_in_the_list_and_none_else() {
    let mut found: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    found.extend(["node".to_owned(), "tests".to_owned()]);
    let listed: BTreeSet<String> = CRATES.iter().map(|(name, ..)| (*name).into()).collect();
    assert_eq!(found, listed, "a crate has a layer; say in CRATES which");
    for name in &listed {
        let named = format!("name = \"{name}\"");
        assert!(
            manifest(name).lines().any(|line| line == named),
            "the folder of `{name}` is named otherwise than its package"
        );
    }
}

#[test]
fn the_allowed_edges_point_down_only() {
    let layers: BTreeMap<&str, u8> = CRATES.iter().map(|(name, at, _)| (*name, *at)).collect();
    for (name, layer, allowed) in &CRATES {
        for below in *allowed {
            assert!(layers[below] < *layer, "`{name}` -> `{below}` is not down");
        }
    }
}

#[test]
fn no_crate_uses_another_that_the_list_does_not_allow() {
    let listed: BTreeSet<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    let found = all_dependencies();
    for (name, _, allowed) in CRATES.iter().filter(|(name, ..)| *name != "tests") {
        for used in &found[name].normal {
            assert!(
                !listed.contains(used.as_str()) || allowed.contains(&used.as_str()),
                "`{name}` -> `{used}` is a new edge. An edge is a decision: if it must be, say why \
                 in docs/decisions/ and add it to CRATES in tests/tests/architecture.rs"
            );
        }
    }
}

#[test]
fn libp2p_sled_and_cedar_are_known_to_one_crate_each() {
    let found = all_dependencies();
    for (library, owner) in KEPT_APART {
        for (name, dependencies) in &found {
            let both = dependencies.normal.iter().chain(&dependencies.tests);
            let depends = both.into_iter().any(|used| used.starts_with(library));
            assert!(
                !depends || *name == owner,
                "`{name}` depends on {library}, which only `{owner}` may know"
            );
            for (path, code) in code_of(name) {
                let path = path.display();
                let crate_name = library.replace('-', "_");
                assert!(
                    *name == owner || !names(&code, &crate_name),
                    "{path} names {library}, which only `{owner}` may know"
                );
            }
        }
    }
}

#[test]
fn pure_crates_touch_no_files_network_clock_or_randomness() {
    let forbidden = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "std::time::SystemTime",
        "std::time::Instant",
        "SystemTime",
        "Instant",
        "tokio",
        "getrandom",
        "OsRng",
        "SysRng",
    ];
    for name in PURE {
        for used in &dependencies_of(name).normal {
            let is_impure = ["tokio", "getrandom", "tempfile", "sled", "libp2p"]
                .iter()
                .any(|library| used.starts_with(library));
            assert!(!is_impure, "`{name}` is pure and depends on `{used}`");
        }
        for (path, code) in code_of(name) {
            for what in forbidden {
                assert!(
                    !names(&code, what),
                    "{} names `{what}`: `{name}` is pure; take the value as an argument",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    for (name, ..) in &CRATES {
        for path in sources(&folder(name)) {
            let source = std::fs::read_to_string(&path).unwrap();
            assert!(
                source.starts_with("//! "),
                "{}: begin with `//!`, one sentence, what it owns, what it refuses",
                path.display()
            );
        }
    }
}

#[test]
fn unsafe_appears_nowhere_and_every_crate_takes_the_lints_of_the_workspace() {
    let word = ["un", "safe"].concat();
    for (name, ..) in &CRATES {
        let manifest = manifest(name);
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "`{name}` does without the lints of the workspace"
        );
        for path in sources(&folder(name)) {
            let code = code_only(&std::fs::read_to_string(&path).unwrap());
            assert!(!names(&code, &word), "{} has {word} code", path.display());
        }
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains(&format!("{word}_code = \"forbid\"")));
}

#[test]
fn no_file_of_the_repository_names_a_place_on_somebodys_machine() {
    let places = ["home", "work", "Users", "tmp/brief"].map(|place| format!("/{place}/"));
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let files: Vec<PathBuf> = match listed {
        Ok(listed) if listed.status.success() => String::from_utf8(listed.stdout)
            .unwrap()
            .split_terminator('\0')
            .map(|path| root().join(path))
            .collect(),
        // Without git, or in an unpacked archive.
        _ => CRATES
            .iter()
            .flat_map(|(name, ..)| sources(&folder(name)))
            .collect(),
    };
    assert!(files.len() > 20);
    for path in files {
        // Files that are not text, or deleted and not yet committed, name nothing.
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for place in &places {
            let named = text.match_indices(place).any(|(at, _)| {
                // The same name within a longer path (`net` before it, say) is no machine's.
                let before = text[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/}$*".contains(c))
            });
            assert!(
                !named,
                "{} names a place below `{place}`; nobody else has it",
                path.display()
            );
        }
    }
}

#[test]
fn the_scan_sees_code_and_skips_comments_quotes_and_tests() {
    let source = "//! tokio\nuse std::{collections, fs};\n/* a /* b */ getrandom */\n\
                  const A: &str = r#\"\"tokio\"#; const B: char = '\\''; const C: char = '\"';\n\
                  fn f<'a>() { \"\\\"tokio\" }\n\
                  #[cfg(test)]\nmod tests { fn g() { tokio::x(); } }\n\
                  #[cfg(test)]\nuse std::net::IpAddr;\n\
                  #[cfg(test)]\nmod vectors;\nfn last(instant: u8) {}\n";
    let mut tests = BTreeSet::new();
    let code = without_tests(Path::new("src/lib.rs"), &code_only(source), &mut tests);
    assert!(names(&code, "std::fs") && names(&code, "std::collections"));
    assert!(code.contains("fn last"));
    for absent in ["tokio", "getrandom", "std::net", "Instant"] {
        assert!(!names(&code, absent), "{absent} in {code}");
    }
    assert!(tests.contains(Path::new("src/vectors.rs")));
    assert!(names("let x = std :: net :: y;", "std::net"));
    assert!(names("use std::{io::Read, net::IpAddr};", "std::net"));
}

#[test]
fn the_scan_finds_in_this_workspace_what_is_there() {
    let somewhere = |name: &str, what: &str| code_of(name).values().any(|c| names(c, what));
    assert!(somewhere("store", "std::fs"));
    assert!(somewhere("p2p", "libp2p") && somewhere("p2p", "tokio"));
    assert!(somewhere("policy", "cedar_policy"));
    for name in PURE {
        assert!(code_of(name).len() > 4, "`{name}` was not read");
    }
}

#[test]
fn the_scan_of_manifests_sees_every_kind_of_dependency() {
    let text = "[package]\nname = \"a\"\n[dependencies]\n# why\nrecord.workspace = true\n\
                sha2 = { workspace = true, features = [\"zeroize\"] }\n\
                [target.'cfg(unix)'.dependencies]\nledger.workspace = true\n\
                [build-dependencies]\nstore.workspace = true\n\
                [dev-dependencies]\nsample.workspace = true\n";
    let found = dependencies(text).unwrap();
    let normal: Vec<&str> = found.normal.iter().map(String::as_str).collect();
    assert_eq!(normal, ["ledger", "record", "sha2", "store"]);
    assert_eq!(found.tests.into_iter().collect::<Vec<_>>(), ["sample"]);
    for hidden in [
        "[dependencies]\nb = { workspace = true, package = \"record\" }\n",
        "[dependencies]\nb = { path = \"../record\" }\n",
        "[dependencies]\nb = \"1.0\"\n",
        "[dependencies.record]\nworkspace = true\n",
    ] {
        assert!(dependencies(hidden).is_err(), "{hidden}");
    }
}
