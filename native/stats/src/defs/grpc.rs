//! What the gRPC statistics filter counts.

use crate::def::group;

group! {
    /// `cluster.NAME.grpc.SERVICE.METHOD.`, and `cluster.NAME.grpc.` for calls that are not told apart.
    Grpc "grpc" {
        counters {
            SUCCESS ? "success",
            FAILURE ? "failure",
            TOTAL ? "total",
            REQUEST_MESSAGE_COUNT ? "request_message_count",
            RESPONSE_MESSAGE_COUNT ? "response_message_count",
            STATUS_0 ? "0",
            STATUS_1 ? "1",
            STATUS_2 ? "2",
            STATUS_3 ? "3",
            STATUS_4 ? "4",
            STATUS_5 ? "5",
            STATUS_6 ? "6",
            STATUS_7 ? "7",
            STATUS_8 ? "8",
            STATUS_9 ? "9",
            STATUS_10 ? "10",
            STATUS_11 ? "11",
            STATUS_12 ? "12",
            STATUS_13 ? "13",
            STATUS_14 ? "14",
            STATUS_15 ? "15",
            STATUS_16 ? "16",
        }
        gauges {}
        histograms {
            UPSTREAM_RQ_TIME ? "upstream_rq_time",
        }
        codes {}
        texts {}
    }
}

/// The counters by status, in its order.
pub const STATUSES: [crate::Counter<Grpc>; 17] = [
    STATUS_0, STATUS_1, STATUS_2, STATUS_3, STATUS_4, STATUS_5, STATUS_6, STATUS_7, STATUS_8,
    STATUS_9, STATUS_10, STATUS_11, STATUS_12, STATUS_13, STATUS_14, STATUS_15, STATUS_16,
];
