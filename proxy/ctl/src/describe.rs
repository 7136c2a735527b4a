//! `causeway describe service`

use causeway_api::{DescribedEndpoint, DescribedPort, Description};
use serde_json::{Value, json};

use crate::cli::{DescribeArgs, Document, Format};
use crate::columns::{labels, list, socket, text};
use crate::daemon::{Daemon, segment};
use crate::get::not_found;
use crate::kind::{Kind, Selection};
use crate::screen::{Screen, Style};
use crate::table;
use crate::{Failure, Verdict};

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

pub(crate) fn run(
    daemon: &Daemon,
    screen: &mut Screen,
    args: &DescribeArgs,
    format: Option<Format>,
) -> Result<Verdict, Failure> {
    let form = Format::of_document(format)?;
    let names = names(&args.objects)?;
    let namespace = &args.namespace.namespace;
    let mut missing = false;
    for (position, name) in names.iter().enumerate() {
        let path = format!("/v1/describe/{}/{}", segment(namespace), segment(name));
        let Some(description) = daemon.find::<Description>(&path)? else {
            missing = true;
            screen.complain(&not_found(Kind::Service, namespace, name))?;
            continue;
        };
        match form {
            Document::Text => {
                if position > 0 {
                    screen.say("")?;
                }
                show(screen, &description)?;
            }
            Document::Json => screen.json(&json!(description))?,
            Document::Yaml => {
                if position > 0 {
                    screen.say("---")?;
                }
                screen.yaml(&json!(description))?;
            }
        }
    }
    Ok(Verdict::finding_if(missing))
}

fn names(words: &[String]) -> Result<Vec<String>, Failure> {
    let usage = || {
        Failure::Usage(
            "only services can be described; write describe service \
             NAME.."
                .into(),
        )
    };
    match Selection::parse(words).map_err(Failure::Usage)? {
        Selection::Names(names) if names.iter().all(|(kind, _)| *kind == Kind::Service) => {
            Ok(names.into_iter().map(|(_, name)| name).collect())
        }
        Selection::Names(_) | Selection::Kinds(_) => Err(usage()),
    }
}

fn show(screen: &mut Screen, description: &Description) -> Result<(), Failure> {
    let fields = fields(description);
    let width = fields.iter().map(|(name, _)| name.len() + 3).max().unwrap_or(0);
    let mut last = "";
    for (name, value) in &fields {
        // Further values of a field stand below its first one.
        let title = if *name == last { String::new() } else { format!("{name}:") };
        last = if matches!(*name, "Labels" | "Annotations") { name } else { "" };
        screen.say(&format!("{title:width$}{value}"))?;
    }
    for port in description.ports.iter().filter(|port| !port.endpoints.is_empty()) {
        screen.say("")?;
        screen.say_all(&endpoints(port))?;
    }
    if !description.remarks.is_empty() {
        screen.say("")?;
        screen.say("Remarks:")?;
    }
    for remark in &description.remarks {
        screen.say_in(Style::Notice, &format!("  - {remark}"))?;
    }
    Ok(())
}

/// Names and values in kubectl's order; those without a value are left out if kubectl does so.
fn fields(description: &Description) -> Vec<(&'static str, String)> {
    let service = &description.service;
    let (meta, spec) = (&service["metadata"], &service["spec"]);
    let mut fields =
        vec![("Name", text(&meta["name"], NONE)), ("Namespace", text(&meta["namespace"], NONE))];
    fields.extend(pairs(&meta["labels"], "=").into_iter().map(|pair| ("Labels", pair)));
    fields.extend(pairs(&meta["annotations"], ": ").into_iter().map(|pair| ("Annotations", pair)));
    fields.push(("Selector", labels(&spec["selector"])));
    fields.push(("Type", text(&spec["type"], "ClusterIP")));
    fields.push(("IP Family Policy", text(&spec["ipFamilyPolicy"], NONE)));
    fields.push(("IP Families", joined(&spec["ipFamilies"])));
    fields.push(("IP", text(&spec["clusterIP"], NONE)));
    fields.push(("IPs", joined(&spec["clusterIPs"])));
    optional(&mut fields, "External IPs", &joined(&spec["externalIPs"]));
    optional(&mut fields, "External Name", &text(&spec["externalName"], NONE));
    optional(&mut fields, "Desired LoadBalancer IP", &text(&spec["loadBalancerIP"], NONE));
    optional(&mut fields, "LoadBalancer Ingress", &ingress(service));
    for (position, port) in list(&spec["ports"]).enumerate() {
        port_fields(&mut fields, port, description.ports.get(position));
    }
    if list(&spec["ports"]).next().is_none() && !description.ports.is_empty() {
        fields.push(("Endpoints", in_rotation(description.ports.first())));
    }
    fields.push(("Session Affinity", text(&spec["sessionAffinity"], "None")));
    optional(&mut fields, "External Traffic Policy", &text(&spec["externalTrafficPolicy"], NONE));
    optional(&mut fields, "Internal Traffic Policy", &text(&spec["internalTrafficPolicy"], NONE));
    optional(&mut fields, "HealthCheck NodePort", &text(&spec["healthCheckNodePort"], NONE));
    let ranges = joined(&spec["loadBalancerSourceRanges"]);
    optional(&mut fields, "LoadBalancer Source Ranges", &ranges);
    fields
}

fn port_fields(
    fields: &mut Vec<(&'static str, String)>,
    port: &Value,
    described: Option<&DescribedPort>,
) {
    let name = text(&port["name"], UNSET);
    let protocol = text(&port["protocol"], "TCP");
    fields.push(("Port", format!("{name}  {}/{protocol}", text(&port["port"], UNSET))));
    let target = text(&port["targetPort"], &text(&port["port"], UNSET));
    fields.push(("TargetPort", format!("{target}/{protocol}")));
    if port["nodePort"].as_u64().is_some_and(|port| port > 0) {
        fields.push(("NodePort", format!("{name}  {}/{protocol}", text(&port["nodePort"], UNSET))));
    }
    fields.push(("Endpoints", in_rotation(described)));
}

/// The endpoints that get new connections.
fn in_rotation(port: Option<&DescribedPort>) -> String {
    let all = port.iter().flat_map(|port| &port.endpoints);
    let chosen: Vec<String> = all.filter(|endpoint| endpoint.in_rotation).map(place).collect();
    crate::columns::some_of(&chosen, NONE)
}

/// Address and port; the address if it has none.
fn place(endpoint: &DescribedEndpoint) -> String {
    let address = endpoint.address.to_string();
    match endpoint.port {
        0 => address,
        port => socket(&address, &port.to_string()),
    }
}

/// Every endpoint of a port with its state.
fn endpoints(port: &DescribedPort) -> Vec<String> {
    let mapped = port.endpoints.iter().any(|endpoint| !endpoint.host_ports.is_empty());
    let rows: Vec<Vec<String>> = port
        .endpoints
        .iter()
        .map(|endpoint| {
            let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| NONE.to_owned());
            let mut row = vec![
                place(endpoint),
                endpoint.state.clone(),
                if endpoint.in_rotation { "yes" } else { "no" }.to_owned(),
                or_none(&endpoint.pod),
                or_none(&endpoint.node),
            ];
            if mapped {
                row.push(crate::columns::some_of(&endpoint.host_ports, NONE));
            }
            row
        })
        .collect();
    let name = if port.name.is_empty() { UNSET } else { &port.name };
    let title = match port.protocol.as_str() {
        "" => "Endpoints:".to_owned(),
        protocol => format!("Endpoints of port {name}/{protocol}:"),
    };
    let mut lines = vec![title];
    let mut columns = vec!["ENDPOINT", "STATE", "NEW TRAFFIC", "POD", "NODE"];
    columns.extend(mapped.then_some("HOST PORTS"));
    let table = table::lines(&columns, &rows);
    lines.extend(table.into_iter().map(|line| format!("  {line}")));
    lines
}

fn optional(fields: &mut Vec<(&'static str, String)>, name: &'static str, value: &str) {
    if value != NONE {
        fields.push((name, value.to_owned()));
    }
}

fn pairs(map: &Value, between: &str) -> Vec<String> {
    let pairs = map.as_object().into_iter().flatten();
    let pairs: Vec<String> =
        pairs.map(|(key, value)| format!("{key}{between}{}", text(value, ""))).collect();
    if pairs.is_empty() { vec![NONE.to_owned()] } else { pairs }
}

fn joined(array: &Value) -> String {
    let all = list(array).map(|one| text(one, "")).collect::<Vec<_>>().join(",");
    if all.is_empty() { NONE.to_owned() } else { all }
}

fn ingress(service: &Value) -> String {
    let shown = |one: &Value| {
        let address = text(&one["ip"], &text(&one["hostname"], NONE));
        match one["ipMode"].as_str() {
            Some(mode) => format!("{address} ({mode})"),
            None => address,
        }
    };
    let all: Vec<String> = list(&service["status"]["loadBalancer"]["ingress"]).map(shown).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}
