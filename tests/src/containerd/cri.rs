//! Kubernetes' runtime service of containerd (`runtime.v1`), asked as kubelet asks it: unary gRPC
//! calls over containerd's socket.

use std::time::{Duration, Instant};

use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use super::Machine;
use crate::{DEADLINE, Node, unique};

/// Namespace of containerd in which its runtime service works.
const NAMESPACE: &str = "k8s.io";

/// A machine whose containerd serves CRI. A sandbox runs [`Machine::IMAGE`], so it answers on ports
/// 80 and 8080.
#[derive(Debug)]
pub struct Cri<'a> {
    machine: Machine<'a>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Cri<'a> {
    /// Starts containerd with the networks that `networks` puts on the machine.
    pub fn start(node: &'a Node, networks: impl FnOnce(&Machine<'_>)) -> Self {
        let machine = Machine::start_host(node, Machine::IMAGE);
        networks(&machine);
        let image = machine.folder.path().join("image.tar");
        let image = image.to_str().expect("a plain path");
        machine.finish("ctr", &["--namespace", NAMESPACE, "images", "import", image]).ok();
        // At its start the service reads networks and images before it is ready.
        machine.kill_containerd();
        machine.start_containerd();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let cri = Self { machine, runtime: runtime.expect("a runtime") };
        cri.await_ready();
        cri
    }

    /// It refuses every call from containerd's readiness until its own.
    fn await_ready(&self) {
        let limit = Instant::now() + DEADLINE;
        loop {
            let answer: Result<message::Nothing, _> = self.call("Status", message::Nothing {});
            let Err(refused) = answer else { return };
            assert!(refused.contains("not initialized yet"), "Status: {refused}");
            assert!(Instant::now() < limit, "{refused}\n{}", self.machine.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine<'a> {
        &self.machine
    }

    /// Starts a sandbox with port 80 published as `host_port`; back with its id when its server
    /// listens, or with what kubelet would show its user.
    ///
    /// # Errors
    /// The status text of the call.
    pub fn run_sandbox(&self, name: &str, host_port: u16) -> Result<String, String> {
        let config = message::PodSandboxConfig {
            metadata: Some(message::Metadata {
                name: name.to_owned(),
                uid: format!("uid{}", unique()),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            port_mappings: vec![message::PortMapping {
                protocol: 0,
                container_port: 80,
                host_port: i32::from(host_port),
            }],
            linux: Some(message::Linux { cgroup_parent: format!("/{}", self.machine.namespace) }),
        };
        let request = message::RunPodSandbox { config: Some(config) };
        let answer: Result<message::SandboxId, _> = self.call("RunPodSandbox", request);
        let id = answer.map(|answer| answer.id)?;
        self.machine.sh("
            until for netns in /run/netns/cni-*; do
              nsenter --net=$netns ss -Hltn 'sport = :80'
            done | grep -q .; do sleep 0.02; done
        ");
        Ok(id)
    }

    /// The address that the service reports of a sandbox.
    pub fn address(&self, id: &str) -> String {
        let request = message::SandboxId { id: id.to_owned() };
        let answer: Result<message::StatusAnswer, _> = self.call("PodSandboxStatus", request);
        let status = answer.unwrap_or_else(|e| panic!("PodSandboxStatus {id}: {e}")).status;
        status.and_then(|status| status.network).expect("a sandbox in a network").ip
    }

    /// Stops and removes a sandbox.
    pub fn remove_sandbox(&self, id: &str) {
        for verb in ["StopPodSandbox", "RemovePodSandbox"] {
            let request = message::SandboxId { id: id.to_owned() };
            let answer: Result<message::Nothing, _> = self.call(verb, request);
            answer.unwrap_or_else(|e| panic!("{verb} {id}: {e}"));
        }
    }

    fn call<Asked, Answer>(&self, verb: &str, asked: Asked) -> Result<Answer, String>
    where
        Asked: prost::Message + 'static,
        Answer: prost::Message + Default + 'static,
    {
        let socket = self.machine.path("/run/containerd/containerd.sock");
        let path = format!("/runtime.v1.RuntimeService/{verb}");
        let path = PathAndQuery::from_maybe_shared(path).expect("a plain path");
        self.runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
            let endpoint = endpoint.expect("a plain path").timeout(DEADLINE);
            let channel: Channel = endpoint.connect().await.expect("containerd listens");
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await.expect("containerd answers");
            let codec = tonic_prost::ProstCodec::default();
            let answer = client.unary(tonic::Request::new(asked), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
        })
    }
}

/// The parts of `k8s.io/cri-api`'s `runtime/v1/api.proto` that are used.
mod message {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Nothing {}

    /// `PodSandboxMetadata`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Metadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) uid: String,
        #[prost(string, tag = "3")]
        pub(super) namespace: String,
        #[prost(uint32, tag = "4")]
        pub(super) attempt: u32,
    }

    /// `PortMapping`; protocol 0 is TCP
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PortMapping {
        #[prost(int32, tag = "1")]
        pub(super) protocol: i32,
        #[prost(int32, tag = "2")]
        pub(super) container_port: i32,
        #[prost(int32, tag = "3")]
        pub(super) host_port: i32,
    }

    /// `LinuxPodSandboxConfig`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Linux {
        #[prost(string, tag = "1")]
        pub(super) cgroup_parent: String,
    }

    /// `PodSandboxConfig`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PodSandboxConfig {
        #[prost(message, optional, tag = "1")]
        pub(super) metadata: Option<Metadata>,
        #[prost(string, tag = "2")]
        pub(super) hostname: String,
        #[prost(message, repeated, tag = "5")]
        pub(super) port_mappings: Vec<PortMapping>,
        #[prost(message, optional, tag = "8")]
        pub(super) linux: Option<Linux>,
    }

    /// `RunPodSandboxRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RunPodSandbox {
        #[prost(message, optional, tag = "1")]
        pub(super) config: Option<PodSandboxConfig>,
    }

    /// `RunPodSandboxResponse`, `PodSandboxStatusRequest`, `StopPodSandboxRequest`,
    /// `RemovePodSandboxRequest`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SandboxId {
        #[prost(string, tag = "1")]
        pub(super) id: String,
    }

    /// `PodSandboxNetworkStatus`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Network {
        #[prost(string, tag = "1")]
        pub(super) ip: String,
    }

    /// `PodSandboxStatus`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(message, optional, tag = "5")]
        pub(super) network: Option<Network>,
    }

    /// `PodSandboxStatusResponse`
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct StatusAnswer {
        #[prost(message, optional, tag = "1")]
        pub(super) status: Option<Status>,
    }
}
