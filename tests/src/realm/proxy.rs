//! A bad line between two nodes: a TCP proxy that cuts, stalls and refuses as it is told.
//!
//! Owns the fate of bytes on their way. It refuses to look into them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of one connection.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// It lasts.
    Whole,
    /// It lasts, and each piece of up to 16 KiB waits this long.
    Slow(Duration),
    /// Cut at once.
    Refused,
    /// Cut after so many bytes, both directions together.
    CutAfter(u64),
    /// After so many bytes nothing moves for this long; then it is cut.
    StallAfter(u64, Duration),
}

/// What decides on each connection, by its number.
type Decide = Box<dyn FnMut(u64) -> Fate + Send>;

/// A running proxy; it stops with this value.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    fates: Arc<Mutex<Decide>>,
    connections: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// Carries connections to `target`; `fate` says what becomes of each, by its number from 0.
    pub fn start(target: &str, fate: impl FnMut(u64) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            fates: Arc::new(Mutex::new(Box::new(fate))),
            connections: Arc::default(),
            stop: Arc::default(),
            open: Arc::default(),
        };
        let (fates, connections) = (proxy.fates.clone(), proxy.connections.clone());
        let (stop, open) = (proxy.stop.clone(), proxy.open.clone());
        let target = target.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let number = connections.fetch_add(1, Ordering::SeqCst);
                let fate = (fates.lock().unwrap())(number);
                if matches!(fate, Fate::Refused) {
                    continue;
                }
                let Ok(upstream) = TcpStream::connect(&target) else {
                    continue;
                };
                let mut open = open.lock().unwrap();
                open.extend([stream.try_clone().unwrap(), upstream.try_clone().unwrap()]);
                drop(open);
                carry(stream, upstream, fate);
            }
        });
        proxy
    }

    /// How many connections there were.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Changes what becomes of the connections from here on.
    pub fn fate(&self, fate: impl FnMut(u64) -> Fate + Send + 'static) {
        *self.fates.lock().unwrap() = Box::new(fate);
    }

    /// Cuts everything that is open.
    pub fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        self.cut();
    }
}

fn carry(one: TcpStream, other: TcpStream, fate: Fate) {
    let moved = Arc::new(AtomicU64::new(0));
    let ways = [
        (one.try_clone().unwrap(), other.try_clone().unwrap()),
        (other, one),
    ];
    for (mut from, mut to) in ways {
        let moved = moved.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let before = moved.fetch_add(count as u64, Ordering::SeqCst);
                let after = before + count as u64;
                match fate {
                    Fate::CutAfter(limit) if after > limit => break,
                    Fate::StallAfter(limit, time) if after > limit => {
                        std::thread::sleep(time);
                        break;
                    }
                    Fate::Slow(time) => std::thread::sleep(time),
                    _ => {}
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
