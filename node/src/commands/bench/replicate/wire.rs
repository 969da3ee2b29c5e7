//! Bytes on the wire (传输量): what one record of some 600 bytes costs on its way to the parent,
//! part by part, counted by a relay between the two nodes.
//!
//! The relay sees what the line sees: TLS, multiplexing, frames and messages. What the messages
//! hold is counted in the child's store, so the parts add up to what was seen.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::NAME;
use crate::client::Client;
use crate::commands::bench::bed::Bed;
use crate::commands::bench::figures::Figures;
use crate::commands::bench::rows::{self, Row};
use crate::commands::bench::{import, replication};
use crate::fault::{Fault, Result};

/// Twice the time after which a node says where its sessions stand.
const SETTLING: Duration = Duration::from_millis(2_500);

/// Bytes of 20 cells of 30 bytes that are filled.
const FILLED: f64 = 600.0;

/// Bytes that went up and down.
#[derive(Default)]
struct Counted {
    up: AtomicU64,
    down: AtomicU64,
}

impl Counted {
    fn now(&self) -> (f64, f64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
        (read(&self.up), read(&self.down))
    }
}

pub fn run(dir: &Path, rows: &[Row], figures: &mut Figures) -> Result<()> {
    let relay = TcpListener::bind("127.0.0.1:0").map_err(|e| Fault::failed(e.to_string()))?;
    let address = relay
        .local_addr()
        .map_err(|e| Fault::failed(e.to_string()))?;
    let counted = Arc::new(Counted::default());
    let counting = counted.clone();
    let mut bed = Bed::behind(dir, &address.to_string(), |parent| {
        // It ends with the process: nothing here has to outlive a bench.
        std::thread::spawn(move || pass(&relay, &parent, &counting));
    })?;
    import::unmeasured(&bed, rows)?;
    let parts = replication::parts(&bed)?;
    let before = counted.now();
    replication::transfer(&mut bed, parts.entries())?;
    std::thread::sleep(SETTLING);
    let after = counted.now();
    let (sent, _) = messages(&bed)?;
    let each = |bytes: f64| bytes / rows.len() as f64;
    let (plaintext, widths) = (rows::value_bytes(rows), rows::width_bytes()?);
    let up = after.0 - before.0;
    let held = parts.bodies + parts.records + parts.acts;
    let name = |part: &str| format!("{NAME}.wire.{part}");
    for (part, bytes) in [
        ("values", plaintext),
        // No value shows its length: each is filled up to the width of its field.
        ("padding", widths - plaintext),
        ("sealing", each(parts.bodies) - widths),
        ("entries", each(parts.records)),
        ("acts", each(parts.acts)),
        // Other ledgers of the child are few and small; they are in here.
        ("messages", each(sent - held)),
        ("transport", each(up - sent)),
        ("answers", each(after.1 - before.1)),
    ] {
        figures.add(name(part), bytes, "bytes/record");
    }
    let all = each(up + after.1 - before.1);
    figures.add(name("all"), all, "bytes/record");
    figures.add(name("of_values"), all / plaintext, "times");
    // What comes on top of the widths depends on the number of cells alone, which is 20.
    let filled = FILLED + all - widths;
    figures.add(name("of_20_cells_of_30_bytes"), filled / FILLED, "times");
    Ok(())
}

/// Bytes of the messages that the child sent and received.
fn messages(bed: &Bed) -> Result<(f64, f64)> {
    let node = bed.running_child()?;
    let status: Value = Client::remote(&node.url, &node.dir).get("/api/v1/sync")?;
    let neighbours = status["peers"].as_array().into_iter().flatten();
    let sum = |field: &str| neighbours.clone().filter_map(|n| n[field].as_f64()).sum();
    Ok((sum("sent"), sum("received")))
}

fn pass(relay: &TcpListener, parent: &str, counted: &Arc<Counted>) {
    for child in relay.incoming().flatten() {
        let Ok(parent) = TcpStream::connect(parent) else {
            continue;
        };
        let (Ok(child_too), Ok(parent_too)) = (child.try_clone(), parent.try_clone()) else {
            continue;
        };
        let _ = (child.set_nodelay(true), parent.set_nodelay(true));
        let (up, down) = (counted.clone(), counted.clone());
        std::thread::spawn(move || copy(child, parent, &up.up));
        std::thread::spawn(move || copy(parent_too, child_too, &down.down));
    }
}

/// A line that breaks ends the copy; the nodes notice by themselves.
fn copy(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        count.fetch_add(got as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
