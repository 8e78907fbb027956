/// Memory that all of a process shares, and its bound.
package struct Budget: Sendable {
    package var name: String
    package var bytesMax: Int
    /// What is in use now. Never blocks.
    package var usedBytes: @Sendable () -> Int

    package init(name: String, bytesMax: Int, usedBytes: @escaping @Sendable () -> Int) {
        self.name = name
        self.bytesMax = bytesMax
        self.usedBytes = usedBytes
    }
}

extension MetricsRegistry {
    /// Shows for each budget what is used and what may be.
    package func registerBudgets(_ budgets: [Budget]) {
        gauges("distribkv_budget_bytes", help: "Memory in use, of what all of the process shares.") {
            budgets.map { Reading(labels: ["budget": $0.name], value: Double($0.usedBytes())) }
        }
        gauges("distribkv_budget_limit_bytes", help: "The bounds of distribkv_budget_bytes.") {
            budgets.map { Reading(labels: ["budget": $0.name], value: Double($0.bytesMax)) }
        }
    }
}
