//! Chaos: the operator is killed at any moment, MLflow is killed and hangs, pods are evicted and nodes
//! drained.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams},
};
use laurel::render::labels;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    Options,
    harness::Harness,
    plan::{NAMESPACE, PLANS},
    random::Random,
};
use crate::support::{
    cluster::{OPERATOR_NAMESPACE, OPERATOR_PODS},
    mlflow,
};

/// Maximum pause between two of them.
const PAUSE: Duration = Duration::from_secs(12);

/// Maximum time for which MLflow hangs.
const HANG: Duration = Duration::from_secs(10);

/// Maximum time for which a node takes no pods.
const DRAIN: Duration = Duration::from_secs(10);

/// Interval between attempts to evict what a PodDisruptionBudget protects.
const AGAIN: Duration = Duration::from_secs(1);

/// The random stream that no driver uses.
const STREAM: u64 = 0;

/// The source of chaos.
pub(super) struct Chaos<'a> {
    harness: &'a Harness,
}

/// The next fault.
#[derive(Clone, Copy)]
enum Wrong {
    OperatorKilled,
    OperatorEnded,
    MlflowKilled,
    MlflowHung,
    PodEvicted,
    NodeDrained,
}

/// The faults, each as often as it is to happen. The last ones evict model servers.
const FAULTS: [Wrong; 8] = [
    Wrong::OperatorKilled,
    Wrong::OperatorKilled,
    Wrong::OperatorEnded,
    Wrong::MlflowKilled,
    Wrong::MlflowHung,
    Wrong::PodEvicted,
    Wrong::PodEvicted,
    Wrong::NodeDrained,
];

impl<'a> Chaos<'a> {
    pub(super) fn of(harness: &'a Harness) -> Self {
        Self { harness }
    }

    /// Causes one fault after another, at any moment, until stopped.
    pub(super) async fn rage(&self, options: Options, mut stopped: watch::Receiver<bool>) {
        use Wrong::{MlflowHung, MlflowKilled, NodeDrained, OperatorEnded, OperatorKilled, PodEvicted};
        let mut random = Random::of(options.seed, STREAM);
        loop {
            let pause = random.up_to(PAUSE);
            let wrong = *random.one_of(if options.evicts { &FAULTS } else { &FAULTS[..5] });
            let (hang, drain, chosen) = (random.up_to(HANG), random.up_to(DRAIN), random.next());
            tokio::select! {
                () = sleep(pause) => {} // At any moment: time itself is the subject.
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            let done = match wrong {
                OperatorEnded => self.end_operator().await,
                MlflowKilled if self.mlflow_answers().await => self.kill_mlflow().await,
                MlflowHung if self.mlflow_answers().await => self.hang_mlflow(hang).await,
                NodeDrained => self.drain_node(drain).await,
                PodEvicted => self.evict_one(chosen).await,
                // An MLflow that is not running again yet cannot be killed.
                OperatorKilled | MlflowKilled | MlflowHung => self.kill_operator("at any moment").await,
            };
            self.tell(done);
        }
    }

    /// An overloaded API server may refuse what is asked here. That is no fault of what is tested.
    fn tell(&self, done: Result<()>) {
        if let Err(refused) = done {
            self.harness.story.log(format!("CHAOS that failed: {refused:#}"));
        }
    }

    async fn evict_one(&self, chosen: u64) -> Result<()> {
        let pods = self.pods().await?;
        let index = usize::try_from(chosen)?.checked_rem(pods.len());
        match index.and_then(|index| pods.get(index)) {
            Some(pod) => self.evict(&pod.name_any()).await.map(drop),
            None => Ok(()),
        }
    }

    /// Lists the running model servers of every alias with more than one: what has a single pod, an eviction
    /// cuts off.
    async fn pods(&self) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.harness.cluster.client.clone(), NAMESPACE);
        let mut pods = Vec::new();
        for plan in PLANS.iter().filter(|plan| plan.replicas > 1) {
            let of_it = format!("{}={}", labels::MODEL_ALIAS, plan.name);
            let running = ListParams::default().labels(&of_it).fields("status.phase=Running");
            pods.extend(api.list(&running).await?.items);
        }
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Evicts a pod as a drained node does. Returns whether its PodDisruptionBudget let it.
    async fn evict(&self, name: &str) -> Result<bool> {
        const PROTECTED: u16 = 429;
        let api: Api<Pod> = Api::namespaced(self.harness.cluster.client.clone(), NAMESPACE);
        match api.evict(name, &EvictParams::default()).await {
            Ok(_) => {
                self.harness.count(|figures| figures.evictions += 1);
                self.harness.story.log(format!("CHAOS the pod {name} is evicted"));
                Ok(true)
            }
            Err(kube::Error::Api(protected)) if protected.code == PROTECTED => {
                self.harness.count(|figures| figures.protected += 1);
                Ok(false)
            }
            Err(kube::Error::Api(gone)) if gone.is_not_found() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a node out of service for a while, and evicts the model servers on it as far as their budgets
    /// allow.
    async fn drain_node(&self, time: Duration) -> Result<()> {
        let pods = self.pods().await?;
        let Some(node) = pods.iter().find_map(|pod| pod.spec.as_ref()?.node_name.clone()) else {
            return Ok(());
        };
        let nodes: Api<Node> = Api::all(self.harness.cluster.client.clone());
        self.harness.cordoned.lock().replace(node.clone());
        nodes.cordon(&node).await?;
        self.harness.count(|figures| figures.drains += 1);
        self.harness.story.log(format!("CHAOS the node {node} is drained for {time:?}"));
        let drained = timeout(time, self.evict_all(&pods, &node)).await;
        if drained.is_ok() {
            sleep(time / 2).await; // Time itself is the subject: nothing starts.
        }
        self.harness.uncordon().await?;
        self.harness.story.log(format!("CHAOS the node {node} takes pods again"));
        drained.unwrap_or(Ok(()))
    }

    async fn evict_all(&self, pods: &[Pod], node: &str) -> Result<()> {
        let is_on_it =
            |pod: &&Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
        for pod in pods.iter().filter(is_on_it) {
            while !self.evict(&pod.name_any()).await? {
                sleep(AGAIN).await; // Its budget allows no more at present.
            }
        }
        Ok(())
    }

    /// Kills the operator, if the API server lets it.
    pub(super) async fn try_to_kill_operator(&self, when: &str) {
        let killed = self.kill_operator(when).await;
        self.tell(killed);
    }

    /// Kills the operator. The next one may start before it is gone.
    async fn kill_operator(&self, when: &str) -> Result<()> {
        self.delete_operator(&DeleteParams::default().grace_period(0)).await?;
        self.harness.count(|figures| figures.operator_kills += 1);
        self.harness.story.log(format!("CHAOS the operator is killed, {when}"));
        Ok(())
    }

    /// Stops the operator as an upgrade or a drained node does.
    async fn end_operator(&self) -> Result<()> {
        self.delete_operator(&DeleteParams::default()).await?;
        self.harness.count(|figures| figures.operator_ends += 1);
        self.harness.story.log("CHAOS the operator is terminated");
        Ok(())
    }

    async fn delete_operator(&self, how: &DeleteParams) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.harness.cluster.client.clone(), OPERATOR_NAMESPACE);
        for pod in pods.list(&ListParams::default().labels(OPERATOR_PODS)).await? {
            match pods.delete(&pod.name_any(), how).await {
                // Gone, also in the moment between the server's read of it and its deletion.
                Err(kube::Error::Api(gone)) if gone.is_not_found() || gone.is_conflict() => {}
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }

    async fn kill_mlflow(&self) -> Result<()> {
        // All but the first process, which restarts it; its data survives.
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
