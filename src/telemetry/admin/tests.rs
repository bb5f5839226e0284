//! The admin address over real connections, with a gateway that is in whatever state a test says.

use std::future::Future;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::connections::CONNECTIONS_MAX;
use super::live::WATCHERS_MAX;
use super::*;
use crate::lifecycle::Lifecycle;
use crate::record::StreamIndex;
use crate::telemetry::metrics::ProbedGauge;

/// State of the gateway that a test changes.
struct State {
    health: Arc<Health>,
    lifecycle: Lifecycle,
}

impl State {
    fn lose_the_sink(&self) {
        let reason = "the sink is\r\naway";
        self.health.set_down(StreamIndex(0), reason.into());
    }
}

/// Runs `test` beside an admin address that is in a state that the test may change.
fn with_admin<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, Arc<State>) -> F) {
    let state = Arc::new(State {
        health: Arc::new(Health::up(1)),
        lifecycle: Lifecycle::new(),
    });
    let gauge = ProbedGauge {
        name: "a_gauge",
        help: "",
        read: Box::new(|| 1.0),
    };
    let metrics = Arc::new(Metrics::new(1, &["telemetry".into()], vec![gauge]));
    let status = Arc::new(Status {
        health: state.health.clone(),
        phases: state.lifecycle.phases(),
        openapi: || r#"{"openapi":"3.1.0"}"#.to_owned(),
        metrics: metrics.clone(),
        top: Top::default(),
        expiring: Expiring::default(),
        audit: Audit::off(),
        settings: "FOREBAY_HTTP3=true # default\n".into(),
    });
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            served = serve(listener, status) => panic!("serving ended: {served:?}"),
            () = test(address, state) => {}
        }
    });
}

/// The whole answer; the connection must end after it.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, path: &str) -> String {
    get_as("localhost", address, path).await
}

async fn get_as(host: &str, address: SocketAddr, path: &str) -> String {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"),
    )
    .await
}

#[test]
fn each_path_has_its_answer() {
    with_admin(|address, _| async move {
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(
            get(address, "/readyz?verbose")
                .await
                .starts_with("HTTP/1.1 200 ")
        );
        assert!(get(address, "/metrics").await.contains("\na_gauge 1\n"));
        let openapi = get(address, "/openapi.json").await;
        assert!(
            openapi.contains("Content-Type: application/json\r\n") && openapi.contains("3.1.0"),
            "{openapi}"
        );
        assert!(
            get(address, "/debug/top")
                .await
                .ends_with("\"window_seconds_max\":600}")
        );
        for path in [
            "/page",
            "/v1/telemetry",
            "/metrics/",
            "/livez%00",
            "/servez/",
        ] {
            assert!(
                get(address, path).await.starts_with("HTTP/1.1 404 "),
                "{path}"
            );
        }
        let posted = ask(
            address,
            "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
        )
        .await;
        assert!(
            posted.starts_with("HTTP/1.1 405 ") && posted.contains("Allow: GET, HEAD\r\n"),
            "{posted}"
        );
    });
}

#[test]
fn not_ready_is_503_and_says_why_in_one_line() {
    with_admin(|address, state| async move {
        state.lose_the_sink();
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nnot ready: stream stream-0: the sink is\\r\\naway\n"),
            "{answer}"
        );
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    });
}

/// For balancers: a stream that is away is no reason to send devices elsewhere, a drain is.
#[test]
fn a_gateway_serves_until_it_drains() {
    with_admin(|address, state| async move {
        state.lose_the_sink();
        let serving = get(address, "/servez").await;
        assert!(serving.starts_with("HTTP/1.1 200 "), "{serving}");
        state.lifecycle.advance(Phase::Draining);
        let draining = get(address, "/servez").await;
        assert!(draining.starts_with("HTTP/1.1 503 "), "{draining}");
        assert!(draining.ends_with("\r\n\r\ndraining\n"), "{draining}");
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
    });
}

async fn dawdler(address: SocketAddr, sends: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sends.as_bytes()).await.unwrap();
    stream
}

/// Every place is taken by a client that never ends its head: the probe takes that of the first
/// one, at once.
#[test]
fn clients_that_dawdle_do_not_lock_the_probes_out() {
    with_admin(|address, _| async move {
        let mut dawdlers = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            dawdlers.push(dawdler(address, "GET /livez HTTP/1.1\r\n").await);
        }
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        let mut rest = Vec::new();
        dawdlers[0].read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "its place was taken");
        let kind = dawdlers[1].try_read(&mut [0]).unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::WouldBlock, "one place was enough");
    });
}

/// A client that takes no answer is idler than none but those that have not asked.
#[test]
fn who_has_asked_keeps_its_place_before_those_who_have_not() {
    with_admin(|address, _| async move {
        let mut asked = dawdler(address, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
        asked.readable().await.unwrap();
        for _ in 0..10 * CONNECTIONS_MAX {
            drop(dawdler(address, "GET").await);
        }
        let mut answer = String::new();
        asked.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    });
}

/// The page's files are answered to no name that another site may have chosen; probes are answered
/// to every name.
#[test]
fn a_page_from_elsewhere_reads_nothing_under_a_name_of_its_own() {
    const GUARDED: [&str; 9] = [
        "/",
        "/page.css",
        "/page.js",
        "/icon.svg",
        "/live",
        "/debug/settings",
        "/debug/log",
        "/debug/top",
        "/debug/what",
    ];
    with_admin(|address, _| async move {
        for path in GUARDED {
            for host in ["rebound.example", "localhost.example:9444", ""] {
                let answer = get_as(host, address, path).await;
                let is_misdirected = answer.starts_with("HTTP/1.1 421 ");
                assert!(is_misdirected, "{path} as {host:?}: {answer}");
                assert!(!answer.contains("FOREBAY_HTTP3"), "{answer}");
            }
        }
        let put = "PUT /debug/log?debug HTTP/1.1\r\nhost: rebound.example\r\n\r\n";
        assert!(ask(address, put).await.starts_with("HTTP/1.1 421 "));
        let absolute = "GET http://rebound.example/debug/top HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert!(ask(address, absolute).await.starts_with("HTTP/1.1 421 "));
        for path in ["/livez", "/servez", "/readyz", "/metrics"] {
            let answer = get_as("gateway.example", address, path).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
        for host in ["127.0.0.1:9444", "[::1]", "localhost:1"] {
            let answer = get_as(host, address, "/").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
        }
    });
}

#[test]
fn a_browser_is_told_to_load_nothing_from_elsewhere() {
    with_admin(|address, _| async move {
        for path in ["/", "/page.css", "/tokens.css", "/page.js", "/icon.svg"] {
            let file = get(address, path).await;
            assert!(file.starts_with("HTTP/1.1 200 "), "{path}: {file}");
            assert!(file.contains("Content-Security-Policy: default-src 'self'\r\n"));
            assert!(file.contains("X-Frame-Options: DENY\r\n"), "{file}");
            let (_, text) = file.split_once("\r\n\r\n").unwrap();
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http:") && !elsewhere.contains("https:"));
            assert!(!text.contains("innerHTML") && !text.contains(" style="));
        }
    });
}

/// Somebody who watches, and reads as far as a test says.
struct Watcher(tokio::io::BufReader<TcpStream>);

impl Watcher {
    async fn open(address: SocketAddr) -> Self {
        let asks = "GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n";
        Self(tokio::io::BufReader::new(dawdler(address, asks).await))
    }

    /// The next frame, or the first line where there is none.
    async fn frame(&mut self) -> Result<Value, String> {
        use tokio::io::AsyncBufReadExt;
        let mut first = String::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await;
            if matches!(read, Err(_) | Ok(0)) {
                return Err(first);
            }
            if let Some(json) = line.strip_prefix("data: ") {
                return Ok(serde_json::from_str(json).unwrap());
            }
            if first.is_empty() {
                first = line;
            }
        }
    }
}

#[test]
fn who_watches_is_told_once_a_second_what_metrics_say() {
    with_admin(|address, state| async move {
        let mut watcher = Watcher::open(address).await;
        let first = watcher.frame().await.unwrap();
        assert_eq!(first["metrics"]["a_gauge"], 1.0);
        assert_eq!(first["state"]["ready"], true);
        state.lose_the_sink();
        let next = watcher.frame().await.unwrap();
        assert_eq!(next["state"]["ready"], false);
        let stream = &next["state"]["streams"][0];
        assert_eq!(stream["reason"], "the sink is\r\naway");
        let at = |frame: &Value| frame["state"]["at_ms"].as_u64().unwrap();
        assert!(at(&next) > at(&first));
        let head = "HEAD /live HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let head = ask(address, head).await;
        assert!(
            head.contains("Content-Type: text/event-stream\r\n"),
            "{head}"
        );
    });
}

/// One more than may is refused in clear text; a place that is left is free again, and when all
/// have gone nothing is made any more.
#[test]
fn watchers_are_bounded_and_cost_nothing_when_they_have_gone() {
    with_admin(|address, _| async move {
        let mut watchers = Vec::new();
        for _ in 0..WATCHERS_MAX {
            watchers.push(Watcher::open(address).await);
        }
        for watcher in &mut watchers {
            watcher.frame().await.unwrap();
        }
        let crowded = get(address, "/live").await;
        assert!(crowded.starts_with("HTTP/1.1 503 "), "{crowded}");
        assert!(crowded.contains("16 watch the live page already"));
        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        let shed = "\nforebay_admin_watchers_shed_total{why=\"full\"} 1\n";
        assert!(get(address, "/metrics").await.contains(shed));
        watchers.clear();
        while !get(address, "/metrics")
            .await
            .contains("\nforebay_admin_watchers 0\n")
        {
            yield_now().await;
        }
        assert!(Watcher::open(address).await.frame().await.is_ok());
    });
}

/// The time is the test's: what a watcher does not take fills the kernel's buffers, and ten seconds
/// later its connection ends, while another one is told on.
#[test]
fn a_watcher_that_takes_nothing_is_cut_off() {
    with_admin(|address, _| async move {
        let mut other = Watcher::open(address).await;
        let slow = Watcher::open(address).await;
        tokio::time::pause();
        let cut = "\nforebay_admin_watchers_shed_total{why=\"slow\"} 1\n";
        let mut seconds = 0;
        while !get(address, "/metrics").await.contains(cut) {
            other.frame().await.expect("it takes what it is told");
            seconds += 1;
            assert!(seconds < 20_000, "it holds its place for ever");
        }
        assert!(seconds > CONNECTION_TIMEOUT.as_secs(), "{seconds}");
        drop(slow);
    });
}

/// Among all that have asked, those who watch give way last.
#[test]
fn a_crowd_does_not_take_the_place_of_those_who_watch() {
    with_admin(|address, _| async move {
        let mut watcher = Watcher::open(address).await;
        watcher.frame().await.unwrap();
        for _ in 0..2 * CONNECTIONS_MAX {
            let asks = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
            dawdler(address, asks).await.readable().await.unwrap();
        }
        assert!(watcher.frame().await.is_ok());
    });
}
