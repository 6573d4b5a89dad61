//! The end: connections on which nothing happens hold nobody up.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::support::{Binary, Database, Raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_do_not_delay_the_end() {
    let database = Database::new().await;
    let server = Binary::serve(&[("DATABASE_URL", &database.url)]);
    let health = "GET /health HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut idle = Raw::connect(server.address).await;
    assert!(idle.write(health).await);
    idle.answer().await;
    let mut half = Raw::connect(server.address).await;
    assert!(half.write(&health[..20]).await);
    let silent = Raw::connect(server.address).await;
    // HTTP/2, used and then deaf to pings: nobody drives the connection any more.
    let stream = Raw::connect(server.address).await.into_stream();
    let (mut requests, mut connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let request = hyper::Request::get("http://h/health").body(()).expect("valid");
    let (response, _) = requests.send_request(request, true).expect("sent");
    let response = tokio::select! {
        response = response => response.expect("a response"),
        _ = &mut connection => panic!("closed"),
    };
    assert_eq!(response.status(), 200);

    server.signal(Signal::SIGTERM);
    let since = Instant::now();
    let (status, log) =
        tokio::task::spawn_blocking(|| server.wait(Duration::from_mins(1))).await.expect("it ends");
    let took = since.elapsed();
    assert!(status.success(), "{log}");
    // One second in which connections are still taken, and another one for what is written.
    assert!(took < Duration::from_secs(10), "{took:?}\n{log}");
    drop((idle, half, silent, requests, connection));
}
