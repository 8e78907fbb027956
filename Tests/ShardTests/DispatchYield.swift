#if canImport(Glibc)
    import Glibc
#elseif canImport(Musl)
    import Musl
#else
    import Darwin
#endif

enum DispatchYield {
    static func yield() -> Int32 { sched_yield() }
}
