//! Secrets stay where they are: no type that holds one is cloned, printed or serialized.
//!
//! Owns two looks at that. The compiler is asked of every secret type that others can name; the
//! sources are read for every type that is wiped on drop, and for bytes named like a secret that
//! are not.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// Does not compile when the type has one of the traits: `some` would then be ambiguous.
macro_rules! lacks {
    ($secret:ty: $($forbidden:path),+) => {
        const _: fn() = || {
            trait Lacks<Which> {
                fn some() {}
            }
            impl<T: ?Sized> Lacks<()> for T {}
            $({
                struct Has;
                impl<T: ?Sized + $forbidden> Lacks<Has> for T {}
            })+
            let _ = <$secret as Lacks<_>>::some;
        };
    };
}

macro_rules! are_secret {
    ($($secret:ty),+ $(,)?) => {
        $(lacks!(
            $secret: Clone, std::fmt::Display, std::fmt::LowerHex, serde::Serialize,
            std::hash::Hash, std::ops::Deref, AsRef<[u8]>
        );)+
    };
}

are_secret! {
    seal::secret::EpochSecret,
    seal::secret::RecordSecret,
    seal::secret::FieldKey,
    seal::secret::RowKey,
    seal::secret::GrantSecret,
    seal::secret::PageKey,
    seal::secret::BlobKey,
    seal::secret::Kek,
    seal::secret::MarkKey,
    seal::secret::Seed,
    seal::grant::SealPrivateKey,
    seal::keystore::Keystore,
    seal::keystore::SoftwareKey,
    seal::derive::FieldKeys,
    seal::body::Opened,
    seal::share::Share,
    watermark::MarkKey,
    sync::Secret,
}

/// Not even inside another type's `Debug`: a secret says its name and nothing else.
#[test]
fn a_secret_shows_its_name_and_nothing_else() {
    use seal::secret::{BlobKey, EpochSecret, FieldKey, GrantSecret, Kek, MarkKey, PageKey};
    use seal::secret::{RecordSecret, RowKey, Seed};
    fn shown(secret: &impl Debug) {
        for text in [format!("{secret:?}"), format!("{secret:#?}")] {
            let hidden = text.contains("hidden") || text.contains("..");
            let bytes = ["171", "ab", "AB"].iter().any(|byte| text.contains(byte));
            assert!(hidden && !bytes, "{text}");
        }
    }
    let bytes = [0xab; 32];
    shown(&EpochSecret::from_bytes(bytes));
    shown(&RecordSecret::from_bytes(bytes));
    shown(&FieldKey::from_bytes(bytes));
    shown(&RowKey::from_bytes(bytes));
    shown(&GrantSecret::from_bytes(bytes));
    shown(&PageKey::from_bytes(bytes));
    shown(&BlobKey::from_bytes(bytes));
    shown(&Kek::from_bytes(bytes));
    shown(&MarkKey::from_bytes(bytes));
    shown(&Seed::from_bytes(bytes));
    shown(&seal::grant::SealPrivateKey::from_bytes(bytes));
    let kek = Kek::from_bytes(bytes);
    shown(&seal::keystore::SoftwareKey::from_kek(kek));
    shown(&watermark::MarkKey::from_bytes(bytes));
    shown(&sync::Secret::new(bytes));
}

/// A struct as it stands in a source file.
struct Declared {
    file: PathBuf,
    name: String,
    derives: String,
    fields: String,
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The sources of all crates without their tests.
fn all_sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    sources(&root.join("crates"), &mut found);
    sources(&root.join("node/src"), &mut found);
    let product = |path: &PathBuf| {
        let path = path.to_str().unwrap();
        ![
            "/tests/",
            "/benches/",
            "/tests.rs",
            "/crashes.rs",
            "/wycheproofs.rs",
            "/attacks.rs",
        ]
        .iter()
        .any(|part| path.contains(part))
    };
    found.retain(product);
    found
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            let end = text.find("#[cfg(test)]\nmod tests {");
            let code: Vec<&str> = text[..end.unwrap_or(text.len())]
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect();
            (path, code.join("\n"))
        })
        .collect()
}

/// The structs of a file, with what is derived for them.
fn structs(path: &Path, code: &str) -> Vec<Declared> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("struct ") {
        let rest = &code[at + "struct ".len()..];
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let starts = code[..at].ends_with("pub ")
            || code[..at].ends_with("pub(crate) ")
            || code[..at].ends_with("pub(super) ")
            || code[..at].ends_with('\n');
        let end = rest.find(['{', ';']).unwrap_or(0);
        if name.is_empty() || !starts {
            continue;
        }
        let body = &rest[..rest.find("\n}").map_or(end, |close| close.max(end))];
        let fields = if rest.as_bytes().get(end) == Some(&b'{') {
            body.to_owned()
        } else {
            rest[..end].to_owned()
        };
        let before = &code[code[..at].rfind(['}', ';']).map_or(0, |end| end + 1)..at];
        found.push(Declared {
            file: path.to_owned(),
            name,
            derives: before.to_owned(),
            fields,
        });
    }
    found
}

/// Bodies of requests: they carry a passphrase to the node, so the client serializes them.
/// `Login` is moved into `Zeroizing` where it is received, `NewOperator` wiped on drop.
/// `Invitation` and `RecoveryLeave` are files that are carried by hand, good for one enrolment and
/// one recovery.
const CARRIERS: [&str; 4] = ["Invitation", "Login", "NewOperator", "RecoveryLeave"];

#[test]
fn what_is_wiped_on_drop_derives_neither_clone_nor_debug_nor_serialize() {
    let mut wiped = Vec::new();
    for (path, code) in all_sources() {
        for declared in structs(&path, &code) {
            let dropped = format!("Drop for {} ", declared.name);
            let by_hand = code.contains(&dropped) && code.contains("zeroize");
            if !declared.derives.contains("ZeroizeOnDrop") && !by_hand {
                continue;
            }
            for forbidden in ["Clone", "Copy", "Debug", "Serialize", "Hash"] {
                let derived = declared
                    .derives
                    .split(|c: char| !c.is_alphanumeric() && c != '_')
                    .any(|word| word == forbidden);
                assert!(
                    !derived || CARRIERS.contains(&declared.name.as_str()),
                    "{}: `{}` holds a secret and derives {forbidden}",
                    declared.file.display(),
                    declared.name
                );
                let by_hand = [
                    format!("impl {forbidden} for {} ", declared.name),
                    format!("impl Display for {} ", declared.name),
                ];
                let printed =
                    forbidden != "Debug" && by_hand.iter().any(|text| code.contains(text.as_str()));
                assert!(!printed, "{}: {}", declared.file.display(), declared.name);
            }
            wiped.push(declared.name);
        }
    }
    // The look sees what is there.
    for known in ["Share", "Opened", "MarkKey", "Secret", "Raw"] {
        assert!(wiped.iter().any(|name| name == known), "{known}: {wiped:?}");
    }
}

#[test]
fn bytes_and_texts_named_like_a_secret_lie_in_types_that_wipe_them() {
    const NAMED: [&str; 7] = [
        "secret",
        "seed",
        "passphrase",
        "kek",
        "private",
        "password",
        "epoch_secret",
    ];
    const BARE: [&str; 4] = ["[u8; 32]", "Vec<u8>", "String", "Option<String>"];
    let mut found = Vec::new();
    for (path, code) in all_sources() {
        for declared in structs(&path, &code) {
            let dropped = format!("Drop for {} ", declared.name);
            let wiped = declared.derives.contains("ZeroizeOnDrop") || code.contains(&dropped);
            for line in declared.fields.lines() {
                let line = line.trim().trim_start_matches("pub ").trim_end_matches(',');
                let Some((name, of)) = line.split_once(": ") else {
                    continue;
                };
                let bare = NAMED.contains(&name) && BARE.contains(&of);
                if bare && !wiped && !excepted(&declared.name) {
                    let file = declared.file.display();
                    found.push(format!("{file}: `{}.{name}` is not wiped", declared.name));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Types whose field of such a name is none: a hash of a secret.
const PUBLIC: [&str; 1] = ["Header"];

fn excepted(name: &str) -> bool {
    PUBLIC.contains(&name) || CARRIERS.contains(&name)
}

#[test]
fn secrets_and_macs_are_compared_in_constant_time() {
    let mut found = Vec::new();
    for (path, code) in all_sources() {
        for (number, line) in code.lines().enumerate() {
            let compared = line.contains("==") || line.contains("!=");
            // A whole name or field: `secret_hash` and `len()` are no secrets.
            let names_secret = line
                .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.' || c == '('))
                .map(|word| word.rsplit('.').next().unwrap_or_default())
                .any(|word| {
                    let secrets = ["secret", "seed", "kek", "mac", "passphrase", "password"];
                    secrets.contains(&word) || word == "expose("
                });
            if compared && names_secret {
                let (path, number) = (path.display(), number + 1);
                found.push(format!("{path}, line {number} without comments: {line}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
