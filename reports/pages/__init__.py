"""The pages: report, leaderboard, dataset."""
