//! Challengers behind a Gateway, under load: their share, pods that go, and their end.

use anyhow::Result;
use laurel::api::{ModelAlias, condition::Reason};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    fixture::{ALL_PODS, Fixture, PATIENCE, manifest, run},
    outside::{CLOSELY, Outside, ROUGHLY, in_effect},
    support::{
        alias::{Alias, challenger_share},
        service::gateway_traffic,
    },
};

const PATH: &str = "/laurel-test-challengers";
const CHALLENGER: &str = "challenger";

fn champion() -> Value {
    let mut traffic = gateway_traffic(PATH);
    traffic["challengers"] = json!([{ "aliasRef": { "name": CHALLENGER }, "weight": 10 }]);
    json!({ "version": "1", "traffic": traffic })
}

async fn has_its_share(fixture: &Fixture, since: Instant) -> Result<Instant> {
    let has = |champion: &ModelAlias| challenger_share(champion, CHALLENGER) == Some(10);
    in_effect(fixture, since, "10 % for the challenger", has).await
}

async fn has_no_share(fixture: &Fixture, since: Instant) -> Result<Instant> {
    let has = |champion: &ModelAlias| challenger_share(champion, CHALLENGER).is_none();
    in_effect(fixture, since, "no share for the challenger", has).await
}

#[test]
fn promise_2_a_challenger_gets_its_share_and_takes_no_request_with_it() {
    run("challengers", ALL_PODS, async |fixture| {
        fixture.good_versions(2).await?;
        let challenger = Alias::observe(&fixture.cluster, &fixture.namespace, CHALLENGER);
        let begun = challenger.apply(&manifest(CHALLENGER, json!({ "version": "2" }))).await?;
        let served = fixture.get(champion()).await?;
        challenger.ready(begun, PATIENCE).await?;
        let outside = Outside::begin(fixture, PATH).await?;
        let begun = has_its_share(fixture, served.accepted).await?;
        outside.share(begun, ("2", 10.0), CLOSELY).await?;

        let lost = Instant::now();
        let of_it = format!("laurel.dev/model-alias={CHALLENGER}");
        fixture.kubectl(&["delete", "pods", "-l", &of_it, "--wait=false"], None).await?;
        let gone = has_no_share(fixture, lost).await?;
        fixture.reported(Reason::ChallengerUnavailable).await?;
        let back = has_its_share(fixture, gone).await?;
        outside.share(back, ("2", 10.0), ROUGHLY).await?;

        let deleted = Instant::now();
        fixture.kubectl(&["delete", "modelalias", CHALLENGER, "--wait=false"], None).await?;
        let gone = has_no_share(fixture, deleted).await?;
        outside.stay_on(gone, "1").await?;
        outside.leave().await
    });
}
