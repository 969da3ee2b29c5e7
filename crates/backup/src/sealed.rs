//! Objects: one file each, sealed with age (C2SP `age.md`) to the recipients of the backup.
//!
//! Owns reading recipients and identities, and the streams in and out. Refuses an object that is
//! cut short: age authenticates the end of its stream.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::str::FromStr;

use age::x25519::{Identity, Recipient};
use sha2::{Digest, Sha256};

use crate::error::{BackupError, Result};
use crate::set::Item;

/// The largest identity file.
const IDENTITY_MAX: u64 = 64 * 1024;
const BLOCK: usize = 256 * 1024;

/// Who can open a backup: age's X25519 recipients, `age1…`.
#[derive(Clone)]
pub struct Recipients(Vec<Recipient>);

impl Recipients {
    /// Reads recipients.
    ///
    /// # Errors
    /// [`BackupError::Key`] when there is none, or one is no age recipient.
    pub fn parse(texts: &[String]) -> Result<Self> {
        if texts.is_empty() {
            return Err(BackupError::Key(
                "没有收件人 / a backup needs a recipient, `age1…`; make one with `fangzhi backup key`, on another machine".into(),
            ));
        }
        texts
            .iter()
            .map(|text| {
                Recipient::from_str(text.trim()).map_err(|_| {
                    BackupError::Key(
                        "收件人应为 age1… / a recipient is not an age X25519 recipient `age1…`; copy it again".into(),
                    )
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }
}

/// What opens a backup. Hidden in debug output; age wipes the keys.
pub struct Identities(Vec<Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identities(hidden)")
    }
}

impl Identities {
    /// Reads an identity file as `age-keygen` writes it.
    ///
    /// # Errors
    /// [`BackupError::Key`] when no line of it is an identity.
    pub fn read(path: &Path) -> Result<Self> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(IDENTITY_MAX).read_to_string(&mut text))
            .map_err(BackupError::io(path))?;
        let lines = text.lines().map(str::trim);
        let found: Vec<Identity> = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| Identity::from_str(line).ok())
            .collect();
        if found.is_empty() {
            return Err(BackupError::Key(format!(
                "`{0}` 中没有 age 私钥 / `{0}` holds no age identity `AGE-SECRET-KEY-…`",
                path.display()
            )));
        }
        Ok(Self(found))
    }
}

/// A new identity file's text, and the recipient to give to nodes.
pub fn generate() -> (age::secrecy::SecretString, String) {
    let identity = Identity::generate();
    let recipient = identity.to_public().to_string();
    (identity.to_string(), recipient)
}

/// Counts and hashes what passes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn end(self) -> (T, u64, String) {
        let digest = self.hash.finalize();
        (
            self.inner,
            self.bytes,
            data_encoding::HEXLOWER.encode(&digest),
        )
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&block[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Length and SHA-256 of what a reader gives.
pub(crate) fn measure(from: &mut impl Read) -> io::Result<(u64, String)> {
    let mut sink = Hashing::new(io::sink());
    copy(from, &mut sink)?;
    let (_, bytes, hash) = sink.end();
    Ok((bytes, hash))
}

/// Seals what a reader gives; says what it was and what it became.
pub(crate) fn seal(
    path: &str,
    from: &mut impl Read,
    to: &mut impl Write,
    recipients: &Recipients,
) -> io::Result<Item> {
    let all = recipients.0.iter().map(|one| one as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(all).map_err(io::Error::other)?;
    let mut plain = Hashing::new(encryptor.wrap_output(Hashing::new(to))?);
    copy(from, &mut plain)?;
    let (stream, bytes, sha256) = plain.end();
    let (_, sealed_bytes, sealed_sha256) = stream.finish()?.end();
    Ok(Item {
        path: path.to_owned(),
        bytes,
        sha256,
        sealed_bytes,
        sealed_sha256,
    })
}

/// Why an object does not come back as it was.
pub(crate) enum Unopened {
    /// It is sealed to other keys than those given.
    OtherKey,
    /// It was cut, changed, or cannot be read.
    Broken(String),
}

impl Unopened {
    pub(crate) fn broken(error: impl std::fmt::Display) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Opens an object into a writer; length and SHA-256 of what came out.
pub(crate) fn open(
    from: impl Read,
    to: &mut impl Write,
    identities: &Identities,
) -> std::result::Result<(u64, String), Unopened> {
    let decryptor = age::Decryptor::new(io::BufReader::new(from)).map_err(Unopened::broken)?;
    let all = identities.0.iter().map(|one| one as &dyn age::Identity);
    let mut plain = decryptor.decrypt(all).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => Unopened::OtherKey,
        other => Unopened::broken(other),
    })?;
    let mut out = Hashing::new(to);
    copy(&mut plain, &mut out).map_err(Unopened::broken)?;
    let (_, bytes, hash) = out.end();
    Ok((bytes, hash))
}
