#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

extension MetricsRegistry {
    /// Registers what every process tells about itself: build, CPU time, memory and start time, by the names that
    /// Prometheus client libraries use.
    public func registerProcessMetrics(role: String, version: String) {
        gauge(
            "distribkv_build_info", help: "Always 1; role and version in the labels.",
            labels: ["role": role, "version": version]
        ) { 1 }
        counter("process_cpu_seconds_total", help: "User and system CPU time spent, in seconds.") {
            ProcessUsage.cpuSeconds
        }
        gauge("process_resident_memory_bytes", help: "Resident memory size, in bytes.") {
            Double(ProcessUsage.residentBytes ?? 0)
        }
        let start = ProcessUsage.wallSeconds
        gauge("process_start_time_seconds", help: "When the process started, in seconds since the Unix epoch.") {
            start
        }
    }
}

/// What the process uses now.
enum ProcessUsage {
    static var cpuSeconds: Double {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    static var wallSeconds: Double {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// The second number of `/proc/self/statm`, in pages; nil where there is no such file.
    static var residentBytes: Int? {
        let descriptor = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        guard count > 0 else { return nil }
        let fields = String(decoding: buffer[..<count], as: UTF8.self).split(separator: " ")
        guard fields.count > 1, let pages = Int(fields[1]) else { return nil }
        return pages * Int(sysconf(Int32(_SC_PAGESIZE)))
    }
}
