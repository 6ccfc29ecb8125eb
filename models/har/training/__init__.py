"""The parts of training that need torch alone: schedule, optimizer, and one step with its checks."""
