//! As much of PostgreSQL's protocol, version 3, as asking one thing after another takes: start-up
//! without a password over a local socket, simple queries, the first value of the last answer.

use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::fault::{Fault, Result};

/// The most bytes of one message that are read.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Version 3.0.
const PROTOCOL: i32 = 3 << 16;

/// A session with a server.
pub struct Client(BufReader<UnixStream>);

fn words(error: std::io::Error) -> Fault {
    Fault::failed(format!("PostgreSQL does not answer: {error}"))
}

fn strange() -> Fault {
    Fault::failed("PostgreSQL answers with what this program does not know")
}

impl Client {
    pub fn connect(socket: &Path, user: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(words)?;
        let mut client = Self(BufReader::new(stream));
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for text in ["user", user, "database", "postgres"] {
            body.extend(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        client.send(None, &body)?;
        client.answer()?;
        Ok(client)
    }

    /// Asks; gives the first value of the last row, if there is one and it is not null.
    pub fn ask(&mut self, query: &str) -> Result<Option<String>> {
        let mut body = query.as_bytes().to_vec();
        body.push(0);
        self.send(Some(b'Q'), &body)?;
        self.answer()
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<()> {
        let length = i32::try_from(body.len() + 4).map_err(|_| strange())?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.0.get_mut().write_all(&message).map_err(words)
    }

    fn answer(&mut self) -> Result<Option<String>> {
        let mut value = None;
        let mut failed = None;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'Z' => return failed.map_or(Ok(value), Err),
                b'D' => value = first_value(&body),
                b'E' => {
                    let text = String::from_utf8_lossy(&body).replace('\0', " ");
                    failed = Some(Fault::failed(format!("PostgreSQL refuses: {text}")));
                }
                // What comes before a password is asked for: this program has none.
                b'R' if body != [0; 4] => return Err(strange()),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).map_err(words)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| strange())?;
        let length = length.checked_sub(4).filter(|l| *l <= MESSAGE_BYTES_MAX);
        let mut body = vec![0; length.ok_or_else(strange)?];
        self.0.read_exact(&mut body).map_err(words)?;
        Ok((kind, body))
    }
}

fn first_value(row: &[u8]) -> Option<String> {
    let (_, rest) = row.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    // Null is a length of -1.
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..length)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_of_a_row_is_read_and_null_is_none() {
        let row = [0, 2, 0, 0, 0, 2, b'4', b'2', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(first_value(&row).as_deref(), Some("42"));
        assert_eq!(first_value(&[0, 1, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(first_value(&[0, 1, 0, 0, 0, 9, b'4']), None);
    }
}
