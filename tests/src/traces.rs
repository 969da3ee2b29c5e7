//! Looking for what must not be there: a text in every byte of a directory, in every encoding
//! that a Chinese office's machine might have written it in.

use std::path::Path;

/// A text to look for, in one encoding.
#[derive(Debug, Clone)]
pub struct Needle {
    /// Which text in which encoding.
    pub name: String,
    bytes: Vec<u8>,
}

/// A text in UTF-8, GBK, UTF-16 of both orders, JSON escapes and hexadecimal.
pub fn needles(text: &str) -> Vec<Needle> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let hex = |bytes: &[u8]| -> Vec<u8> {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat().into_bytes()
    };
    let escaped: Vec<String> = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
    let mut all = vec![
        ("UTF-8", text.as_bytes().to_vec()),
        (
            "UTF-16LE",
            units.iter().flat_map(|u| u.to_le_bytes()).collect(),
        ),
        (
            "UTF-16BE",
            units.iter().flat_map(|u| u.to_be_bytes()).collect(),
        ),
        ("hexadecimal", hex(text.as_bytes())),
        ("JSON escapes", escaped.concat().into_bytes()),
    ];
    let (gbk, _, lost) = encoding_rs::GBK.encode(text);
    assert!(!lost, "the text to look for can be written in GBK");
    all.push(("GBK", gbk.into_owned()));
    let needle = |(encoding, bytes)| Needle {
        name: format!("`{text}` in {encoding}"),
        bytes,
    };
    all.into_iter().map(needle).collect()
}

/// Which needles stand in some bytes.
pub fn in_bytes<'a>(bytes: &[u8], needles: &'a [Needle]) -> Vec<&'a str> {
    needles
        .iter()
        .filter(|needle| contains(bytes, &needle.bytes))
        .map(|needle| needle.name.as_str())
        .collect()
}

/// Every file under a directory in which, or in whose name, a needle stands; and the number of
/// bytes that were looked at.
pub fn in_dir(dir: &Path, needles: &[Needle]) -> (Vec<String>, u64) {
    let mut found = Vec::new();
    let mut looked_at = 0;
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        for name in in_bytes(path.file_name().unwrap().as_encoded_bytes(), needles) {
            found.push(format!("name of {}: {name}", path.display()));
        }
        if path.is_dir() {
            let (more, bytes) = in_dir(&path, needles);
            found.extend(more);
            looked_at += bytes;
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        looked_at += bytes.len() as u64;
        for name in in_bytes(&bytes, needles) {
            found.push(format!("{}: {name}", path.display()));
        }
    }
    (found, looked_at)
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some((first, _)) = needle.split_first() else {
        return true;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}
