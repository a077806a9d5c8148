//! The load client that the demo and the end-to-end tests measure with, against servers that misbehave in one
//! way each: what must count as lost is counted, and nothing else is.

#[path = "../../support/load/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo and the end-to-end tests use the rest")]
mod load;
mod server;

use std::time::Duration;

use load::{Connection, Load, Loss, Plan, Report, Request, Target};
use server::{Behaviour, Server};
use tokio::time::Instant;

/// Sends 50 requests per second with one kind of connection until `count` have ended, and reports all.
async fn send(server: &Server, connection: Connection, count: usize) -> Report {
    let per_second = |kind| if kind == connection { 50 } else { 0 };
    let plan = Plan {
        fresh_per_second: per_second(Connection::Fresh),
        keep_alive_per_second: per_second(Connection::KeepAlive),
        timeout: Duration::from_millis(500),
        max_in_flight: 1000,
        at_most: Duration::from_secs(20),
    };
    let start = Instant::now();
    let load = Load::start(&Target::from(server.address), &Request::post_json("/invocations", "{}"), plan);
    let enough = |report: &Report| report.sent() >= count;
    assert!(load.until(start, Duration::from_secs(15), enough).await, "{}", load.report());
    load.stop().await
}

/// The only kind of loss in a report in which every request was lost.
fn only_loss(report: &Report) -> Loss {
    assert!(report.answered().is_empty(), "{report}");
    let losses = report.losses();
    assert_eq!(losses.len(), 1, "{report}");
    losses.into_keys().next().unwrap()
}

#[tokio::test]
async fn answers_are_counted_by_the_version_that_they_name() {
    let server = Server::start(Behaviour::KeepOpen).await;
    let report = send(&server, Connection::Fresh, 20).await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(report.answered().into_iter().collect::<Vec<_>>(), [("7".to_owned(), report.sent())]);
    assert!(report.first_answer_by("7") < report.last_answer_by("7"));
    assert_eq!(report.last_answer_by("8"), None);
    assert!(report.latency(0.5) <= report.latency(0.99));
}

#[tokio::test]
async fn a_fresh_client_opens_a_connection_for_each_request_and_a_keep_alive_client_does_not() {
    let server = Server::start(Behaviour::KeepOpen).await;
    let report = send(&server, Connection::Fresh, 20).await;
    assert_eq!(server.connections(), report.sent());

    let server = Server::start(Behaviour::KeepOpen).await;
    let report = send(&server, Connection::KeepAlive, 20).await;
    assert_eq!(report.lost(), 0, "{report}");
    assert!(server.connections() < report.sent() / 2, "{} connections: {report}", server.connections());
}

#[tokio::test]
async fn a_keep_alive_client_closes_if_a_response_says_close() {
    let server = Server::start(Behaviour::SayClose).await;
    let report = send(&server, Connection::KeepAlive, 20).await;
    assert_eq!(report.lost(), 0, "{report}");
    assert_eq!(server.connections(), report.sent());
}

#[tokio::test]
async fn an_idle_connection_that_the_server_closes_is_not_a_loss() {
    let server = Server::start(Behaviour::CloseSilently).await;
    let report = send(&server, Connection::KeepAlive, 20).await;
    assert_eq!(report.lost(), 0, "{report}");
}

#[tokio::test]
async fn resets_are_lost_requests() {
    for connection in [Connection::Fresh, Connection::KeepAlive] {
        let server = Server::start(Behaviour::Reset).await;
        assert_eq!(only_loss(&send(&server, connection, 10).await), Loss::Reset);
    }
}

#[tokio::test]
async fn a_request_that_is_read_and_not_answered_is_lost_even_on_a_used_connection() {
    let server = Server::start(Behaviour::AnswerOnceThenVanish).await;
    let report = send(&server, Connection::KeepAlive, 20).await;
    assert!(report.lost() >= 5, "{report}");
    assert_eq!(report.losses().into_keys().collect::<Vec<_>>(), [Loss::Closed]);
}

#[tokio::test]
async fn a_partial_response_is_a_lost_request() {
    let server = Server::start(Behaviour::HalfAnAnswer).await;
    assert_eq!(only_loss(&send(&server, Connection::Fresh, 10).await), Loss::Closed);
}

#[tokio::test]
async fn an_answer_other_than_2xx_is_a_lost_request() {
    let server = Server::start(Behaviour::Unavailable).await;
    assert_eq!(only_loss(&send(&server, Connection::KeepAlive, 10).await), Loss::Status(503));
}

#[tokio::test]
async fn silence_is_a_lost_request() {
    let server = Server::start(Behaviour::Silent).await;
    assert_eq!(only_loss(&send(&server, Connection::Fresh, 10).await), Loss::Timeout);
}

#[tokio::test]
async fn a_refused_connection_is_a_lost_request() {
    let mut server = Server::start(Behaviour::KeepOpen).await;
    server.stop_listening().await;
    assert_eq!(only_loss(&send(&server, Connection::Fresh, 10).await), Loss::Refused);
}

#[tokio::test]
async fn the_rate_is_kept_when_answers_are_slow() {
    let delay = Duration::from_millis(400);
    let server = Server::start(Behaviour::Slow(delay)).await;
    let start = Instant::now();
    let report = send(&server, Connection::Fresh, 50).await;
    // 50 a second, each answered after 0.4 s: a client that waits for answers would need 20 s for 50 of them.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}: {report}", start.elapsed());
    assert!(report.latency(0.5) >= Some(delay), "{report}");
    assert_eq!(report.lost(), 0, "{report}");
}

#[tokio::test]
async fn requests_are_counted_by_the_time_they_were_due_or_ended() {
    let server = Server::start(Behaviour::Slow(Duration::from_millis(400))).await;
    let start = Instant::now();
    let load = Load::start(
        &Target::from(server.address),
        &Request::get("/ping"),
        Plan::both(50, Duration::from_secs(20)),
    );
    assert!(load.until(start, Duration::from_secs(15), |report| report.sent() >= 20).await);
    let moment = Instant::now();
    assert!(load.until(moment, Duration::from_secs(15), |report| report.sent() >= 20).await);
    let (ended, asked) = (load.ended_since(moment), load.since(moment));
    assert!(ended.samples().iter().all(|status| moment <= status.ended), "{ended}");
    assert!(asked.samples().iter().all(|status| moment <= status.due), "{asked}");
    // 100 a second for 0.4 s were under way.
    assert!(ended.sent() > asked.sent() + 20, "{ended}; {asked}");
    let (sent, lost) = load.counts();
    assert!(sent >= ended.sent() && lost == 0, "{sent} sent, {lost} lost");
}

#[tokio::test(flavor = "current_thread")]
async fn requests_that_could_not_be_sent_in_time_are_counted() {
    let server = Server::start(Behaviour::KeepOpen).await;
    let plan = Plan::both(50, Duration::from_secs(20));
    let start = Instant::now();
    let load = Load::start(&Target::from(server.address), &Request::get("/ping"), plan);
    assert!(load.until(start, Duration::from_secs(5), |report| report.sent() > 10).await);
    std::thread::sleep(Duration::from_millis(1500)); // The whole runtime stands still.
    assert!(load.until(start, Duration::from_secs(5), |report| report.not_sent() > 0).await);
    assert!(load.stop().await.not_sent() < 100);
}

#[test]
fn quantiles_are_values_that_occurred() {
    let values = vec![30, 10, 20, 40];
    assert_eq!(load::quantile(values.clone(), 0.5), Some(20));
    assert_eq!(load::quantile(values.clone(), 0.99), Some(40));
    assert_eq!(load::quantile(values, 0.0), Some(10));
    assert_eq!(load::quantile(Vec::<i32>::new(), 0.5), None);
}
