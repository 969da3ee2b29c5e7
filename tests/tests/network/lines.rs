//! A bad line between two network namespaces, packet by packet.
//!
//! Each namespace has one interface toward the test, over which HTTP goes undisturbed, and one
//! toward the other namespace (VXLAN), whose packets pass through this process. Delay, loss and
//! silence come from the kernel's `netem` where it has that, and from here where it has not: many
//! kernels for virtual machines do not.
//! Needs root and `ip` of iproute2; says so when it cannot have them.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The port of the tunnel, both ways.
const PORT: u16 = 4790;
/// Packets on their way in one direction; more are lost, as in any router.
const QUEUE: usize = 512;

/// What becomes of packets.
#[derive(Debug, Default)]
struct Weather {
    delay_ms: AtomicU64,
    loss_per_mille: AtomicU64,
    down: AtomicBool,
    without_udp: AtomicBool,
    stop: AtomicBool,
}

/// Two namespaces and the line between them; gone when this is dropped.
pub struct Net {
    /// The namespace of the parent, and that of the child.
    pub names: [String; 2],
    octet: u8,
    weather: Arc<Weather>,
    netem: bool,
}

fn run(args: &[&str]) -> Result<(), String> {
    let output = Command::new(args[0])
        .args(&args[1..])
        .output()
        .map_err(|error| format!("`{}`: {error}", args[0]))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}`: {}", args.join(" "), words.trim()))
}

impl Net {
    /// A good line, or why this machine does not let a test have one.
    pub fn new() -> Result<Self, String> {
        let seed = std::process::id().wrapping_mul(31);
        let mut last = String::new();
        for attempt in 0..24u32 {
            let octet = (seed.wrapping_add(attempt * 7) % 250 + 2) as u8;
            match Self::with(octet) {
                Ok(net) => return Ok(net),
                // Another test may have these addresses.
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn with(octet: u8) -> Result<Self, String> {
        let names = ["p", "c"].map(|side| format!("fz{octet}{side}"));
        run(&["ip", "netns", "add", &names[0]])?;
        let mut net = Self {
            names,
            octet,
            weather: Arc::default(),
            netem: false,
        };
        run(&["ip", "netns", "add", &net.names[1]])?;
        for side in 0..2 {
            net.wire(side)?;
        }
        net.relay().map_err(|error| error.to_string())?;
        let probe = [
            "tc", "qdisc", "replace", "dev", "far", "root", "netem", "delay", "0ms",
        ];
        net.netem = (0..2).all(|side| net.inside(side, &probe).is_ok());
        Ok(net)
    }

    fn wire(&self, side: usize) -> Result<(), String> {
        let (name, octet) = (&self.names[side], self.octet);
        let (outer, inner) = (format!("{name}0"), format!("{name}1"));
        let here = format!("198.18.{octet}.{}", side * 4 + 1);
        run(&[
            "ip", "link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", name,
        ])?;
        run(&["ip", "addr", "add", &format!("{here}/30"), "dev", &outer])?;
        run(&["ip", "link", "set", &outer, "up"])?;
        self.inside(side, &["ip", "link", "set", "lo", "up"])?;
        let there = format!("{}/30", self.near(side));
        self.inside(side, &["ip", "addr", "add", &there, "dev", &inner])?;
        self.inside(side, &["ip", "link", "set", &inner, "up"])?;
        let (port, next) = (PORT.to_string(), (PORT + 1).to_string());
        self.inside(
            side,
            &[
                "ip",
                "link",
                "add",
                "far",
                "type",
                "vxlan",
                "id",
                "5",
                "remote",
                &here,
                "dstport",
                &port,
                "srcport",
                &port,
                &next,
                "dev",
                &inner,
                "nolearning",
            ],
        )?;
        // One packet at a time: the relay gets what would be on a wire.
        self.inside(side, &["ip", "link", "set", "far", "gso_max_segs", "1"])?;
        self.inside(side, &["ip", "link", "set", "far", "up"])?;
        self.address(side, side as u8 + 1, true)
    }

    fn inside(&self, side: usize, args: &[&str]) -> Result<(), String> {
        let exec = ["ip", "netns", "exec", self.names[side].as_str()];
        run(&[&exec[..], args].concat())
    }

    /// Where the test reaches a side's HTTP.
    pub fn near(&self, side: usize) -> String {
        format!("198.18.{}.{}", self.octet, side * 4 + 2)
    }

    /// An address of a side on the bad line.
    pub fn far(&self, host: u8) -> String {
        format!("198.19.{}.{host}", self.octet)
    }

    /// Gives a side an address on the bad line, or takes it away.
    pub fn address(&self, side: usize, host: u8, there: bool) -> Result<(), String> {
        let word = if there { "add" } else { "del" };
        let address = format!("{}/24", self.far(host));
        self.inside(side, &["ip", "addr", word, &address, "dev", "far"])
    }

    /// Each packet takes so long each way, and so many of a thousand are lost.
    pub fn weather(&self, delay_ms: u64, loss_per_mille: u64) {
        if self.netem {
            let delay = format!("{delay_ms}ms");
            let loss = format!("{}.{}%", loss_per_mille / 10, loss_per_mille % 10);
            for side in 0..2 {
                let netem = ["netem", "delay", &delay, "loss", &loss];
                let device = ["tc", "qdisc", "replace", "dev", "far", "root"];
                self.inside(side, &[&device[..], &netem].concat()).unwrap();
            }
            return;
        }
        self.weather.delay_ms.store(delay_ms, Ordering::Relaxed);
        self.weather
            .loss_per_mille
            .store(loss_per_mille, Ordering::Relaxed);
    }

    /// Nothing passes, and nobody is told.
    pub fn down(&self, down: bool) {
        self.weather.down.store(down, Ordering::SeqCst);
    }

    /// No UDP passes, as behind many a firewall.
    pub fn without_udp(&self, without: bool) {
        self.weather.without_udp.store(without, Ordering::SeqCst);
    }

    fn relay(&self) -> std::io::Result<()> {
        let socket = |side: usize| {
            let here = format!("198.18.{}.{}:{PORT}", self.octet, side * 4 + 1);
            UdpSocket::bind(here)
        };
        let sockets = [socket(0)?, socket(1)?];
        for side in 0..2 {
            let (from, to) = (sockets[side].try_clone()?, sockets[1 - side].try_clone()?);
            let target = format!("{}:{PORT}", self.near(1 - side));
            let weather = self.weather.clone();
            from.set_read_timeout(Some(Duration::from_millis(3)))?;
            std::thread::spawn(move || carry(&from, &to, &target, &weather));
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.weather.stop.store(true, Ordering::Relaxed);
        for name in &self.names {
            let _ = run(&["ip", "netns", "del", name]);
            let _ = run(&["ip", "link", "del", &format!("{name}0")]);
        }
    }
}

fn carry(from: &UdpSocket, to: &UdpSocket, target: &str, weather: &Weather) {
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut dice = tests::Dice::new("lost packets");
    let mut buffer = vec![0; 70_000];
    while !weather.stop.load(Ordering::Relaxed) {
        let received = from.recv_from(&mut buffer);
        // Asked after the wait for a packet, so that none sent after `Net::down` is let through.
        let down = weather.down.load(Ordering::SeqCst);
        if let Ok((length, _)) = received {
            let walled = weather.without_udp.load(Ordering::SeqCst) && is_udp(&buffer[..length]);
            let lost = dice.below(1000) < weather.loss_per_mille.load(Ordering::Relaxed);
            let lost = lost || walled;
            if !down && !lost && queue.len() < QUEUE {
                let delay = Duration::from_millis(weather.delay_ms.load(Ordering::Relaxed));
                let mut packet = buffer[..length].to_vec();
                complete(&mut packet);
                queue.push_back((Instant::now() + delay, packet));
            }
        }
        if down {
            queue.clear();
        }
        while queue.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            if let Some((_, packet)) = queue.pop_front() {
                let _ = to.send_to(&packet, target);
            }
        }
    }
}

/// VXLAN 8, Ethernet 14, then IPv4.
const IP: usize = 22;

fn is_udp(packet: &[u8]) -> bool {
    packet.len() >= IP + 28 && packet[20..22] == [8, 0] && packet[IP + 9] == 17
}

/// Fills in TCP's checksum, which the kernel leaves to a network card that is not there; UDP's is
/// taken away, for whoever has none.
fn complete(packet: &mut [u8]) {
    if is_udp(packet) {
        let udp = IP + usize::from(packet[IP] & 15) * 4;
        if let Some(sum) = packet.get_mut(udp + 6..udp + 8) {
            sum.fill(0);
        }
        return;
    }
    if packet.len() < IP + 40 || packet[20..22] != [8, 0] || packet[IP + 9] != 6 {
        return;
    }
    let header = usize::from(packet[IP] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[IP + 2], packet[IP + 3]]));
    let (tcp, end) = (IP + header, IP + total);
    if end > packet.len() || tcp + 18 > end {
        return;
    }
    packet[tcp + 16..tcp + 18].fill(0);
    let mut sum = 6 + (end - tcp) as u32;
    let words = packet[IP + 12..IP + 20]
        .chunks(2)
        .chain(packet[tcp..end].chunks(2));
    for word in words {
        let low = word.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([word[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[tcp + 16..tcp + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
