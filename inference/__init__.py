"""Networks that only draw or measure: generators with merged constants, and networks compiled for the CPU."""
