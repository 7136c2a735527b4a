//! Fields that are not of a service's type: dropped when they are what is left of the type that it
//! had, as `dropTypeDependentFields` of Kubernetes does since 1.20, refused when a user asks for
//! them.

use std::collections::BTreeSet;

use crate::{Misplaced, Service, ServiceType, TrafficPolicy};

use super::{Refused, Work, has_cluster_ip, refused};

impl Work<'_> {
    /// Drops what the previous version had alike.
    pub(super) fn drop_misplaced(&self, service: &mut Service) -> Result<(), Refused> {
        if !has_node_ports(service) {
            self.drop_node_ports(service)?;
        }
        let Some(fields) = service.misplaced.take() else { return Ok(()) };
        self.check_external(&fields)?;
        self.check_load_balancer(&fields)?;
        self.check_addresses(&fields)
    }

    fn drop_node_ports(&self, service: &mut Service) -> Result<(), Refused> {
        let numbers = |service: &Service| -> BTreeSet<u16> {
            service.ports.iter().filter_map(|port| port.node_port).collect()
        };
        let given = service.ports.iter().position(|port| port.node_port.is_some());
        let Some(index) = given else { return Ok(()) };
        let before = self.previous.filter(|previous| has_node_ports(previous));
        if before.is_none_or(|previous| numbers(previous) != numbers(service)) {
            let reason = "is for types NodePort and LoadBalancer only";
            return refused(format!("spec.ports[{index}].nodePort"), reason);
        }
        service.ports.iter_mut().for_each(|port| port.node_port = None);
        Ok(())
    }

    fn check_external(&self, fields: &Misplaced) -> Result<(), Refused> {
        let before = self
            .previous
            .filter(|previous| has_node_ports(previous) || !previous.external_ips.is_empty());
        let before = before.map(|previous| previous.external_policy);
        if fields.external_policy.is_some() && fields.external_policy != before {
            let reason = "is for types NodePort and LoadBalancer, and for externalIPs, only";
            return refused("spec.externalTrafficPolicy", reason);
        }
        Ok(())
    }

    fn check_load_balancer(&self, fields: &Misplaced) -> Result<(), Refused> {
        const ONLY: &str = "is for type LoadBalancer only";
        let before =
            self.previous.filter(|previous| previous.service_type == ServiceType::LoadBalancer);
        let allocate = before.map(|previous| previous.allocate_node_ports);
        if fields.allocate_node_ports.is_some() && fields.allocate_node_ports != allocate {
            return refused("spec.allocateLoadBalancerNodePorts", ONLY);
        }
        let class = before.and_then(|previous| previous.load_balancer_class.as_ref());
        if fields.load_balancer_class.is_some() && fields.load_balancer_class.as_ref() != class {
            return refused("spec.loadBalancerClass", ONLY);
        }
        let local = before.filter(|previous| previous.external_policy == TrafficPolicy::Local);
        let health = local.and_then(|previous| previous.health_check_node_port);
        if fields.health_check_node_port.is_some() && fields.health_check_node_port != health {
            let reason = "is for type LoadBalancer with externalTrafficPolicy Local only";
            return refused("spec.healthCheckNodePort", reason);
        }
        if fields.ingress && before.is_none() {
            return refused("status.loadBalancer.ingress", ONLY);
        }
        Ok(())
    }

    /// What an ExternalName cannot have.
    fn check_addresses(&self, fields: &Misplaced) -> Result<(), Refused> {
        const NOT: &str = "must not be set for type ExternalName";
        let before = self.previous.filter(|previous| has_cluster_ip(previous));
        let alike = |is: &dyn Fn(&Service) -> bool| before.is_some_and(is);
        if !fields.cluster_ips.is_empty()
            && !alike(&|previous| previous.cluster_ips == fields.cluster_ips)
            || fields.headless && !alike(&|previous| previous.headless)
        {
            return refused("spec.clusterIP", NOT);
        }
        if !fields.ip_families.is_empty()
            && !alike(&|previous| previous.ip_families == fields.ip_families)
        {
            return refused("spec.ipFamilies", NOT);
        }
        if let Some(policy) = fields.ip_family_policy
            && !alike(&|previous| previous.ip_family_policy == policy)
        {
            return refused("spec.ipFamilyPolicy", NOT);
        }
        Ok(())
    }
}

fn has_node_ports(service: &Service) -> bool {
    matches!(service.service_type, ServiceType::NodePort | ServiceType::LoadBalancer)
}
