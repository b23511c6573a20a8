// The types of the library, for the check alone.
export * from "lightweight-charts";
