//! HTTP connections of a running node: how many there may be, how slow, and their orderly end.
//!
//! Owns the limits that stand before any route: whoever opens connections and says nothing, or
//! says it a byte a minute, takes a bounded share of the node for a bounded time.
//! Refuses nothing by what is asked: that is the router's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Of these, from one address that is not this machine's.
    pub per_address: usize,
    /// A request's head must be there so long after its connection, or the answer before, ended.
    pub head: Duration,
    /// The longest silence within a request's body, and within the reading of an answer.
    pub silence: Duration,
    /// How long requests under way may take once the node is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            per_address: 128,
            head: Duration::from_secs(30),
            silence: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// Connections open, by address.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

/// One place among them; free again when dropped.
struct Place {
    open: Arc<Open>,
    from: IpAddr,
}

impl Open {
    fn take(self: &Arc<Self>, from: IpAddr, limits: &Limits) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, here) = (
            open.values().sum::<usize>(),
            open.get(&from).copied().unwrap_or(0),
        );
        if all >= limits.connections || (!from.is_loopback() && here >= limits.per_address) {
            return None;
        }
        *open.entry(from).or_default() += 1;
        Some(Place {
            open: self.clone(),
            from,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.from);
            }
        }
    }
}

/// Serves until told to stop, then lets requests under way come to their end.
///
/// `refused` is called for each connection over a limit.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
    refused: impl Fn(),
) {
    let open = Arc::new(Open::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            () = async { drop(stopping.wait_for(|told| *told).await) } => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, most likely: accepting again at once would spin.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match open.take(from.ip(), &limits) {
            Some(place) => {
                let (router, stopping) = (router.clone(), stopping.clone());
                connections.spawn(async move {
                    connection(stream, router, limits, stopping).await;
                    drop(place);
                });
            }
            None => refused(),
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // A client that holds its connection open does not keep the node from ending.
    let _ = tokio::time::timeout(limits.drain, ended).await;
}

async fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let socket = socket2::SockRef::from(&stream);
    // Whoever does not take its answer is cut off by the kernel.
    let _ = socket.set_tcp_user_timeout(Some(limits.silence));
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(|body| Body::new(Impatient::new(body, limits.silence)));
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head);
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async { drop(stopping.wait_for(|told| *told).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A request's body that fails when nothing more of it comes for too long.
struct Impatient<B> {
    body: B,
    silence: Duration,
    until: Pin<Box<Sleep>>,
}

impl<B> Impatient<B> {
    fn new(body: B, silence: Duration) -> Self {
        Self {
            body,
            silence,
            until: Box::pin(tokio::time::sleep(silence)),
        }
    }
}

impl<B> HttpBody for Impatient<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let next = Instant::now() + this.silence;
            this.until.as_mut().reset(next);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match this.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(
                "the rest of the request did not come; send it again".into(),
            ))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SHORT: Limits = Limits {
        connections: 3,
        per_address: 2,
        head: Duration::from_millis(300),
        silence: Duration::from_millis(300),
        drain: Duration::from_millis(500),
    };

    struct Served {
        at: SocketAddr,
        stop: watch::Sender<bool>,
        refused: Arc<AtomicUsize>,
        task: tokio::task::JoinHandle<()>,
    }

    async fn start() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopping) = watch::channel(false);
        let refused = Arc::new(AtomicUsize::new(0));
        let count = refused.clone();
        let slow = post(|body: Bytes| async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            body.len().to_string()
        });
        let router = Router::new().route("/", slow);
        let task = tokio::spawn(async move {
            let refused = || {
                count.fetch_add(1, Ordering::SeqCst);
            };
            serve(listener, router, SHORT, stopping, refused).await;
        });
        Served {
            at,
            stop,
            refused,
            task,
        }
    }

    /// What the server says until it ends the connection.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let reading = stream.read_to_end(&mut bytes);
        // A reset is an end as well.
        let _ = tokio::time::timeout(Duration::from_secs(20), reading)
            .await
            .expect("the connection stays open");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn a_request_whose_head_never_ends_is_cut_off() {
        let served = start().await;
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: a")
            .await
            .unwrap();
        assert!(!rest(&mut stream).await.contains("200"));
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_more_is_closed() {
        let served = start().await;
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
        stream.write_all(request).await.unwrap();
        let text = rest(&mut stream).await;
        assert!(
            text.starts_with("HTTP/1.1 200") && text.ends_with('2'),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        let served = start().await;
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nab";
        stream.write_all(request).await.unwrap();
        let text = rest(&mut stream).await;
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }

    #[tokio::test]
    async fn a_body_that_comes_slowly_but_comes_is_read() {
        let served = start().await;
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            stream.write_all(b"a").await.unwrap();
        }
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn connections_over_the_limit_are_closed_and_counted_and_places_come_free() {
        let served = start().await;
        let mut held = Vec::new();
        for _ in 0..SHORT.connections {
            held.push(TcpStream::connect(served.at).await.unwrap());
        }
        // In a queue of the kernel, so in order: those before were taken in first.
        let mut over = TcpStream::connect(served.at).await.unwrap();
        assert_eq!(rest(&mut over).await, "");
        assert_eq!(served.refused.load(Ordering::SeqCst), 1);
        for stream in &mut held {
            rest(stream).await;
        }
        let mut stream = TcpStream::connect(served.at).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request).await.unwrap();
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn one_address_does_not_take_every_place() {
        let open = Arc::new(Open::default());
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let held: Vec<_> = (0..SHORT.per_address)
            .map(|_| open.take(one, &SHORT).unwrap())
            .collect();
        assert!(open.take(one, &SHORT).is_none());
        assert!(open.take(other, &SHORT).is_some());
        drop(held);
        assert!(open.take(one, &SHORT).is_some());
    }

    #[tokio::test]
    async fn a_request_under_way_is_answered_and_a_silent_one_does_not_keep_the_node() {
        let served = start().await;
        let mut silent = TcpStream::connect(served.at).await.unwrap();
        silent.write_all(b"POST").await.unwrap();
        let mut busy = TcpStream::connect(served.at).await.unwrap();
        let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\na";
        busy.write_all(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        served.stop.send(true).unwrap();
        assert!(rest(&mut busy).await.starts_with("HTTP/1.1 200"));
        tokio::time::timeout(Duration::from_secs(10), served.task)
            .await
            .unwrap()
            .unwrap();
    }
}
