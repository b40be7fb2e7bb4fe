"""What to type to go on."""

from engine.stop import same_command


def test_the_same_command_but_for_where_it_started():
    began = ["train.py", "--data", "my set", "--resume", "runs/a/checkpoints/step-5", "--run", "a"]
    assert same_command(began) == "python train.py --data 'my set' --run a"
    assert same_command(["train.py", "--resume=x", "--steps", "3"]) == "python train.py --steps 3"
    assert same_command(["train.py", "--run", "--resume"]) == "python train.py --run"
