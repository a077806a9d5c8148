//! What goes wrong: the operator ends at any moment, MLflow dies and hangs.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{harness::Harness, random::Random};
use crate::support::{
    cluster::{OPERATOR_NAMESPACE, OPERATOR_PODS},
    mlflow,
};

/// The longest pause between two of them.
const PAUSE: Duration = Duration::from_secs(12);

/// The longest that MLflow hangs.
const HANG: Duration = Duration::from_secs(10);

/// Of the streams of choices the one that is not a driver's.
const STREAM: u64 = 0;

/// Who makes things go wrong.
pub(super) struct Chaos<'a> {
    harness: &'a Harness,
}

/// What goes wrong next.
#[derive(Clone, Copy)]
enum Wrong {
    OperatorKilled,
    OperatorEnded,
    MlflowKilled,
    MlflowHung,
}

impl<'a> Chaos<'a> {
    pub(super) fn of(harness: &'a Harness) -> Self {
        Self { harness }
    }

    /// Makes one thing after the other go wrong, at any moment, until it is stopped.
    pub(super) async fn rage(&self, seed: u64, mut stopped: watch::Receiver<bool>) -> Result<()> {
        use Wrong::{MlflowHung, MlflowKilled, OperatorEnded, OperatorKilled};
        let mut random = Random::of(seed, STREAM);
        loop {
            let pause = random.up_to(PAUSE);
            let wrong =
                *random.one_of(&[OperatorKilled, OperatorKilled, OperatorEnded, MlflowKilled, MlflowHung]);
            let hang = random.up_to(HANG);
            tokio::select! {
                () = sleep(pause) => {} // At any moment: time itself is the subject.
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            }
            match wrong {
                OperatorEnded => self.end_operator().await?,
                MlflowKilled if self.mlflow_answers().await => self.kill_mlflow().await?,
                MlflowHung if self.mlflow_answers().await => self.hang_mlflow(hang).await?,
                // An MLflow that has not come back yet cannot be killed.
                OperatorKilled | MlflowKilled | MlflowHung => self.kill_operator("at any moment").await?,
            }
        }
    }

    /// Kills the operator without a word. The next one may be there before it is quite gone.
    pub(super) async fn kill_operator(&self, when: &str) -> Result<()> {
        self.delete_operator(&DeleteParams::default().grace_period(0)).await?;
        self.harness.count(|figures| figures.operator_kills += 1);
        self.harness.story.log(format!("CHAOS the operator is killed, {when}"));
        Ok(())
    }

    /// Ends the operator as an upgrade or a drained node ends it.
    async fn end_operator(&self) -> Result<()> {
        self.delete_operator(&DeleteParams::default()).await?;
        self.harness.count(|figures| figures.operator_ends += 1);
        self.harness.story.log("CHAOS the operator is listed to end");
        Ok(())
    }

    async fn delete_operator(&self, how: &DeleteParams) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.harness.cluster.client.clone(), OPERATOR_NAMESPACE);
        for pod in pods.list(&ListParams::default().labels(OPERATOR_PODS)).await? {
            match pods.delete(&pod.name_any(), how).await {
                Err(kube::Error::Api(gone)) if gone.is_not_found() => {}
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }

    async fn kill_mlflow(&self) -> Result<()> {
        // All but the first process, which starts it again; its data outlives it.
        self.in_mlflow("kill -KILL -1").await?;
        self.harness.count(|figures| figures.mlflow_restarts += 1);
        self.harness.story.log("CHAOS MLflow is killed");
        Ok(())
    }

    async fn hang_mlflow(&self, time: Duration) -> Result<()> {
        self.harness.count(|figures| figures.mlflow_hangs += 1);
        self.harness.story.log(format!("CHAOS MLflow hangs for {time:?}"));
        self.in_mlflow(&format!("kill -STOP -1; sleep {}; kill -CONT -1", time.as_secs_f64())).await
    }

    async fn in_mlflow(&self, script: &str) -> Result<()> {
        let (namespace, name) = mlflow::SERVICE;
        let deployment = format!("deployment/{name}");
        let command = ["exec", "-n", namespace, &deployment, "--", "sh", "-c", script];
        self.harness.cluster.run_kubectl(&command, None).await.map(drop)
    }

    async fn mlflow_answers(&self) -> bool {
        let asked = self.harness.mlflow.alias(&self.harness.model, "any");
        timeout(Duration::from_secs(5), asked).await.is_ok_and(|answer| answer.is_ok())
    }
}
