//! The admin address over real connections, with a gateway that is in whatever state a test says.

use std::future::Future;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::connections::CONNECTIONS_MAX;
use super::*;
use crate::lifecycle::Lifecycle;
use crate::record::StreamIndex;
use crate::telemetry::metrics::ProbedGauge;

/// What a test changes about the gateway.
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
    let status = Arc::new(Status {
        health: state.health.clone(),
        phases: state.lifecycle.phases(),
        openapi: || r#"{"openapi":"3.1.0"}"#.to_owned(),
        metrics: Arc::new(Metrics::new(1, &["telemetry".into()], vec![gauge])),
        top: Top::default(),
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
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
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
        for path in ["/", "/v1/telemetry", "/metrics/", "/livez%00", "/servez/"] {
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
