//! Gauges that are read off when somebody asks for metrics.

use mainstay_db::{Collection, Method};

/// Records a collection's present figures.
pub(crate) fn record(collection: &Collection) {
    let status = collection.status();
    let name = status.name;
    let gauge = |metric: &'static str, value: f64| {
        metrics::gauge!(metric, "collection" => name.clone()).set(value);
    };
    gauge("mainstay_documents", status.documents as f64);
    gauge("mainstay_log_durable_seq", status.durable_seq as f64);
    if let Some((done, total)) = status.refined {
        gauge("mainstay_refined_passages", done as f64);
        gauge("mainstay_passages", total as f64);
    }
    for view in status.views {
        let labels = [("collection", name.clone()), ("view", view.view.to_string())];
        metrics::gauge!("mainstay_view_indexed_through", &labels).set(view.indexed_through as f64);
        metrics::gauge!("mainstay_view_segments", &labels).set(view.figures.segments as f64);
        metrics::gauge!("mainstay_view_disk_bytes", &labels).set(view.figures.disk_bytes as f64);
        metrics::gauge!("mainstay_view_memory_bytes", &labels)
            .set(view.figures.memory_bytes as f64);
        metrics::gauge!("mainstay_set_aside", &labels).set(view.set_aside as f64);
    }
    for method in Method::ALL {
        let labels = [("collection", name.clone()), ("method", method.to_string())];
        let breaker = collection.breaker(method).snapshot();
        metrics::gauge!("mainstay_circuit_breaker_state", &labels)
            .set(f64::from(breaker.state.as_gauge()));
    }
}
